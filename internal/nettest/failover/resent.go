package failover

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// resent counts the TCP segments that client and server have sent again so
// far: each stands for one that was lost on the way, or its answer.
func (r *Rig) resent() (sum int, err error) {
	for _, n := range []*nettest.Node{r.Pair.Client, r.Pair.Server} {
		var text []byte
		err := n.Do(func() (err error) {
			text, err = os.ReadFile("/proc/thread-self/net/snmp")
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("read TCP counters of %s: %w", n.Name, err)
		}
		count, err := counter(string(text), "Tcp:", "RetransSegs")
		if err != nil {
			return 0, fmt.Errorf("read TCP counters of %s: %w", n.Name, err)
		}
		sum += count
	}
	return sum, nil
}

// counter finds a number in /proc/net/snmp, which has a line of names and a
// line of values for each protocol.
func counter(snmp, protocol, name string) (int, error) {
	var names []string
	for line := range strings.Lines(snmp) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != protocol {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, n := range names {
			if n == name && i < len(fields) {
				return strconv.Atoi(fields[i])
			}
		}
	}
	return 0, fmt.Errorf("no %s %s", protocol, name)
}
