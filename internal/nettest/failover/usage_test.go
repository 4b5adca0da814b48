package failover

import (
	"os"
	"strings"
	"testing"
)

// TestFlat has daemons that leak, and some that only look like it.
func TestFlat(t *testing.T) {
	const samples = 100
	for name, test := range map[string]struct {
		at   func(i int) Sample
		want []string // complaints; none: flat
	}{
		"constant":      {func(int) Sample { return Sample{20 << 10, 20, 9} }, nil},
		"grows at once": {func(i int) Sample { return Sample{20<<10 + min(i, 20)<<10, min(i, 20), min(i, 20)} }, nil},
		"breathes":      {func(i int) Sample { return Sample{20<<10 + i%10<<10, 20 + i%10/9*50, 9} }, nil},
		"shrinks":       {func(i int) Sample { return Sample{200<<10 - i<<10, 200 - i, 200 - i} }, nil},
		"leaks memory": {func(i int) Sample { return Sample{20<<10 + i*200, 20, 9} },
			[]string{"daemon of a: 28480 KiB, then 36480: more than 6144 more"}},
		"leaks much memory slowly": {func(i int) Sample { return Sample{200<<10 + i*200, 20, 9} }, nil},
		"leaks descriptors": {func(i int) Sample { return Sample{20 << 10, 20 + i/10, 9} },
			[]string{"daemon of a: 22 descriptors, then 26: more than 2 more"}},
		"leaks threads": {func(i int) Sample { return Sample{20 << 10, 20, 9 + i/10} },
			[]string{"daemon of a: 11 threads, then 15: more than 2 more"}},
		"leaks all": {func(i int) Sample { return Sample{20<<10 + i<<10, 20 + i, 9 + i} },
			[]string{"KiB", "descriptors", "threads"}},
	} {
		t.Run(name, func(t *testing.T) {
			u := Usage{Firewall: "a"}
			for i := range samples {
				u.Samples = append(u.Samples, test.at(i))
			}
			var lines []string
			if err := u.Flat(); err != nil {
				lines = strings.Split(err.Error(), "\n")
			}
			if len(lines) != len(test.want) {
				t.Fatalf("complaints %q, want %q", lines, test.want)
			}
			for i, want := range test.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("complaint %q, want %q", lines[i], want)
				}
			}
		})
	}
	few := Usage{Firewall: "a", Samples: make([]Sample, enoughSamples-1)}
	if few.Flat() == nil {
		t.Error("flat without enough samples")
	}
}

// TestSampleOf looks at the test itself.
func TestSampleOf(t *testing.T) {
	before, err := sampleOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if before.RSS < 1000 || before.Threads < 2 || before.Descriptors < 3 {
		t.Errorf("this test holds %+v", before)
	}
	for range 5 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	after, err := sampleOf(os.Getpid())
	if err != nil || after.Descriptors < before.Descriptors+5 {
		t.Errorf("five more descriptors: %+v, then %+v, %v", before, after, err)
	}
	if _, err := sampleOf(1 << 30); err == nil {
		t.Error("a process that does not exist")
	}
}
