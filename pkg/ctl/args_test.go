package ctl

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// split is strings.Split, but no text is no argument; a blank at the end makes
// an empty one.
func split(args string) []string {
	if args == "" {
		return nil
	}
	return strings.Split(args, " ")
}

func TestParseArgsRequests(t *testing.T) {
	for _, c := range commandLines {
		cmd, err := ParseArgs(split(c.args), rows)
		if err != nil || cmd.Kind != Client || cmd.Code != c.code {
			t.Errorf("%q: got %+v %v, want code %d", c.args, cmd, err, c.code)
		}
		if cmd.ConfigFile != DefaultConfigFile {
			t.Errorf("%q: configuration %q", c.args, cmd.ConfigFile)
		}
	}
}

func TestEveryRowCanBeSent(t *testing.T) {
	sent := make(map[int32]bool)
	for _, c := range commandLines {
		sent[c.code] = true
	}
	for _, r := range rows {
		if r.Flag != "" && !sent[r.Code] {
			t.Errorf("no command line sends %d (%s)", r.Code, r.Flag)
		}
	}
}

func TestParseArgsCommands(t *testing.T) {
	const other = "/tmp/other.conf"
	tests := []struct {
		args string
		want Command
	}{
		{"", Command{Kind: Foreground, ConfigFile: DefaultConfigFile}},
		{"-d", Command{Kind: Daemon, ConfigFile: DefaultConfigFile}},
		{"-d -d", Command{Kind: Daemon, ConfigFile: DefaultConfigFile}},
		{"-C " + other, Command{Kind: Foreground, ConfigFile: other}},
		{"-C " + other + " -d", Command{Kind: Daemon, ConfigFile: other}},
		{"-d -C " + other, Command{Kind: Daemon, ConfigFile: other}},
		{"-C /nowhere -C " + other, Command{Kind: Foreground, ConfigFile: other}},
		{"-i -C " + other + " -x", Command{Kind: Client, ConfigFile: other, Code: 24}},
		{"-s cache -C " + other, Command{Kind: Client, ConfigFile: other, Code: 29}},
		{"-v", Command{Kind: Version, ConfigFile: DefaultConfigFile}},
		{"-h", Command{Kind: Usage, ConfigFile: DefaultConfigFile}},
		{"--version", Command{Kind: Version, ConfigFile: DefaultConfigFile}},
		{"--help", Command{Kind: Usage, ConfigFile: DefaultConfigFile}},
		{"-hv", Command{Kind: Usage, ConfigFile: DefaultConfigFile}},
		{"-v -Z", Command{Kind: Version, ConfigFile: DefaultConfigFile}},
		{"-h -Z", Command{Kind: Usage, ConfigFile: DefaultConfigFile}},
		{"-i -v", Command{Kind: Version, ConfigFile: DefaultConfigFile}},
		{"-d -h", Command{Kind: Usage, ConfigFile: DefaultConfigFile}},
		{"-s mul", Command{Kind: Client, ConfigFile: DefaultConfigFile, Code: 31,
			Warnings: []string{"use `link' instead of `multicast' as parameter."}}},
		{"-stats", Command{Kind: Client, ConfigFile: DefaultConfigFile, Code: 21,
			Warnings: []string{"option `-stats' is taken as `-s'"}}},
		{"-internal -xml", Command{Kind: Client, ConfigFile: DefaultConfigFile, Code: 24,
			Warnings: []string{"option `-internal' is taken as `-i'", "option `-xml' is taken as `-x'"}}},
	}
	for _, test := range tests {
		got, err := ParseArgs(split(test.args), rows)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q:\n got %+v %v\nwant %+v", test.args, got, err, test.want)
		}
	}
}

func TestParseArgsErrors(t *testing.T) {
	const (
		silent = false
		usage  = true
	)
	tests := []struct {
		args      string
		msg       string
		showUsage bool
	}{
		{"-Z", "Unknown option: -Z", usage},
		{"-V", "Unknown option: -V", usage},
		{"-S", "Unknown option: -S", usage},
		{"--dump", "Unknown option: --dump", usage},
		{"-", "Unknown option: `-'", usage},
		{"stats", "Unknown option: `stats'", usage},
		{" -s", "Unknown option: `'", usage},
		{"-B now", "Unknown option: `now'", usage},
		{"-i ct expect", "Unknown option: `expect'", usage},
		{"-i -x ct", "Unknown option: `ct'", usage},
		{"-s -", "Unknown option: `-'", usage},
		{"-s foo", "unknown parameter `foo' for option `-s'", silent},
		{"-s networkx", "unknown parameter `networkx' for option `-s'", silent},
		{"-s Cache", "unknown parameter `Cache' for option `-s'", silent},
		{"-f ct", "unknown parameter `ct' for option `-f'", silent},
		{"-i foo", "unknown parameter `foo' for option `-i'", silent},
		{"-c CT", "unknown parameter `CT' for option `-c'", silent},
		{"-d -s", "Invalid parameters", usage},
		{"-s -d", "Invalid parameters", usage},
		{"-i -x -d", "Invalid parameters", usage},
		{"-x", "Invalid parameters", usage},
		{"-x -i", "Invalid parameters", usage},
		{"-s -x", "Invalid parameters", usage},
		{"-s ct -x", "Invalid parameters", usage},
		{"-i -x -x", "Invalid parameters", usage},
		{"-i -B -x", "Invalid parameters", usage},
		{"-d -x", "Invalid parameters", usage},
		{"-C", "option `-C' needs the name of a configuration file", usage},
		{"-C -s", "option `-C' needs the name of a configuration file", usage},
		{"-C ", "option `-C' needs the name of a configuration file", usage},
		{"-C/etc/c.conf -s", "Unknown option: -C/etc/c.conf (write -C file)", usage},
	}
	for _, test := range tests {
		cmd, err := ParseArgs(split(test.args), rows)
		var usageErr *UsageError
		if !errors.As(err, &usageErr) {
			t.Errorf("%q: got %+v %v, want an error", test.args, cmd, err)
			continue
		}
		if usageErr.Msg != test.msg || usageErr.ShowUsage != test.showUsage {
			t.Errorf("%q:\n got %q %v\nwant %q %v", test.args, usageErr.Msg, usageErr.ShowUsage, test.msg, test.showUsage)
		}
	}
}

func TestParseArgsOptionThatNeedsAWord(t *testing.T) {
	only := []Request{{Code: 7, Flag: "-z fast"}}
	if cmd, err := ParseArgs([]string{"-z", "f"}, only); err != nil || cmd.Code != 7 {
		t.Errorf("got %+v %v", cmd, err)
	}
	if _, err := ParseArgs([]string{"-z"}, only); err == nil || err.Error() != "option `-z' needs a parameter" {
		t.Errorf("got %v", err)
	}
}

func TestMalformedRowsPanic(t *testing.T) {
	for _, flag := range []string{"i", "--long", "-i,", "ct -x"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q: no panic", flag)
				}
			}()
			ParseArgs(nil, []Request{{Flag: flag}})
		}()
	}
}

func TestUsageText(t *testing.T) {
	const want = `Connection tracking userspace daemon v1.4.7
Usage: conntrackd [commands] [options]

General commands:
  -d, start in the background
  -C [configfile], read this configuration file
  -v, print the version
  -h, print this help

Client mode commands:
  -c [ct|expect], commit
  -f [internal|external], flush the caches
  -F [ct|expect], flush the kernel table
  -i [ct|expect], show the internal cache
  -e [ct|expect], show the external cache
  -k, end the daemon
  -s [network|cache|runtime|link|rsqueue|process|queue|ct|expect], show statistics
  -R [ct|expect], read the kernel table
  -B, send everything
  -n, ask for everything
  -t, purge later
  -x, print entries as XML (after -i or -e)

`
	if got := UsageText("conntrackd", "1.4.7", rows); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestVersionText(t *testing.T) {
	got := VersionText("1.4.7", "abc1234")
	if !strings.HasPrefix(got, "Connection tracking userspace daemon v1.4.7 (conntrackgo abc1234).") || strings.Count(got, "\n") != 2 || !strings.HasSuffix(got, "\n") {
		t.Errorf("got %q", got)
	}
}

func FuzzParseArgs(f *testing.F) {
	for _, c := range commandLines {
		f.Add(c.args)
	}
	f.Add("-C -x -d --help - \x00")
	f.Add("-c 192.0.2.1 -x -c")
	f.Fuzz(func(t *testing.T, line string) {
		cmd, err := ParseArgs(split(line), withOperand)
		var usageErr *UsageError
		if err != nil && !errors.As(err, &usageErr) {
			t.Fatalf("error of type %T", err)
		}
		if err == nil && cmd.ConfigFile == "" {
			t.Fatal("no configuration file")
		}
		if (cmd.Operand != "") != (cmd.Code == 1001) {
			t.Fatalf("request %d with operand %q", cmd.Code, cmd.Operand)
		}
	})
}
