package ctl

// rows is the whole of conntrackd's command line.
var rows = []Request{
	{Code: 46, Flag: "-c", Help: "commit"},
	{Code: 18, Flag: "-c ct"},
	{Code: 42, Flag: "-c expect"},
	{Code: 45, Flag: "-f", Help: "flush the caches"},
	{Code: 33, Flag: "-f internal"},
	{Code: 34, Flag: "-f external"},
	{Code: 19},
	{Code: 43, Flag: "-F", Help: "flush the kernel table"},
	{Code: 0, Flag: "-F ct"},
	{Code: 38, Flag: "-F expect"},
	{Code: 16, Flag: "-i, -i ct", Help: "show the internal cache"},
	{Code: 24, Flag: "-i -x, -i ct -x"},
	{Code: 40, Flag: "-i expect"},
	{Code: 47, Flag: "-i expect -x"},
	{Code: 17, Flag: "-e, -e ct", Help: "show the external cache"},
	{Code: 25, Flag: "-e -x, -e ct -x"},
	{Code: 41, Flag: "-e expect"},
	{Code: 48, Flag: "-e expect -x"},
	{Code: 20, Flag: "-k", Help: "end the daemon"},
	{Code: 28, Flag: "-s network"},
	{Code: 29, Flag: "-s cache"},
	{Code: 30, Flag: "-s runtime"},
	{Code: 31, Flag: "-s link", Old: "-s multicast"},
	{Code: 32, Flag: "-s rsqueue"},
	{Code: 35, Flag: "-s process"},
	{Code: 36, Flag: "-s queue"},
	{Code: 21, Flag: "-s, -s ct", Help: "show statistics"},
	{Code: 37, Flag: "-s expect"},
	{Code: 44, Flag: "-R", Help: "read the kernel table"},
	{Code: 1, Flag: "-R ct"},
	{Code: 39, Flag: "-R expect"},
	{Code: 22, Flag: "-B", Help: "send everything"},
	{Code: 23, Flag: "-n", Help: "ask for everything"},
	{Code: 26, Flag: "-t", Help: "purge later"},
}

// commandLines are requests that C conntrackd and we read alike.
var commandLines = []struct {
	args string
	code int32
}{
	{"-c", 46}, {"-c ct", 18}, {"-c c", 18}, {"-c expect", 42}, {"-c exp", 42}, {"-c e", 42},
	{"-f", 45}, {"-f internal", 33}, {"-f i", 33}, {"-f external", 34}, {"-f ex", 34},
	{"-F", 43}, {"-F ct", 0}, {"-F expect", 38}, {"-F e", 38},
	{"-i", 16}, {"-i ct", 16}, {"-i -x", 24}, {"-i ct -x", 24}, {"-i expect", 40}, {"-i e", 40}, {"-i expect -x", 47}, {"-i e -x", 47},
	{"-e", 17}, {"-e ct", 17}, {"-e -x", 25}, {"-e ct -x", 25}, {"-e expect", 41}, {"-e expect -x", 48},
	{"-k", 20}, {"-B", 22}, {"-n", 23}, {"-t", 26},
	{"-s", 21}, {"-s ct", 21}, {"-s network", 28}, {"-s n", 28}, {"-s ", 28},
	{"-s cache", 29}, {"-s c", 29}, {"-s runtime", 30}, {"-s r", 30}, {"-s link", 31}, {"-s l", 31},
	{"-s multicast", 31}, {"-s m", 31}, {"-s rsqueue", 32}, {"-s rs", 32},
	{"-s process", 35}, {"-s p", 35}, {"-s queue", 36}, {"-s q", 36}, {"-s expect", 37}, {"-s exp", 37}, {"-s e", 37},
	{"-R", 44}, {"-R ct", 1}, {"-R expect", 39}, {"-R exp", 39},
	{"-c -B", 22}, {"-i -e", 17}, {"-i -e -x", 25}, {"-i -x -e", 17}, {"-i -x -B", 22}, {"-i -x -i", 16}, {"-i -i", 16},
	{"-stats", 21}, {"-ix -x", 24},
}
