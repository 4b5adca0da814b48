// Package difftest_test holds our daemon to the C daemon, word for word: the
// same configuration, the same kernel table, the same peer, the same commands
// in the same order, once with each. What they print, on which stream, their
// exit codes, their logs and what becomes of the kernel's table is compared
// line by line. Only times, process ids and counters of traffic are made
// equal. What differs for a reason is a row in differences; a difference
// without a row fails, and so does a row without a difference.
package difftest_test

import (
	"flag"
	"os"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Scenes mostly wait.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	code := m.Run()
	nettest.RemoveGoBinary()
	os.Exit(code)
}
