package grouptest_test

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// member is a node of a group and the flows that a test has made there, which
// are [first, next) of flood.Mixed. One goroutine at a time makes flows.
type member struct {
	*nettest.Daemon
	addr        netip.Addr
	w           *flood.Writer
	first, next int
	changes     uint32
	table       nettest.Table // the kernel's, nil if not read since the last change
}

func (m *member) write(run func(flood.Load) (flood.Result, error), from, to int) error {
	m.table = nil
	_, err := run(flood.MixedFlows(from, to, m.changes))
	return err
}

// begin makes n flows more.
func (m *member) begin(n int) error {
	m.changes = 0
	m.next += n
	return m.write(m.w.Create, m.next-n, m.next)
}

// change changes the newest n flows.
func (m *member) change(n int) error {
	m.changes++
	return m.write(m.w.Update, m.next-n, m.next)
}

// end ends the oldest n flows.
func (m *member) end(n int) error {
	m.first += n
	return m.write(m.w.Delete, m.first-n, m.first)
}

// life is flows that come, change and go: n more, of which some change, and as
// many end of those there are.
func (m *member) life(n int) error {
	if err := m.begin(n); err != nil {
		return err
	}
	if err := m.change(n / 2); err != nil {
		return err
	}
	return m.end(n / 3)
}

// kernel is the table of the node, which has nothing but the flows of the test.
func (m *member) kernel() (nettest.Table, error) {
	if m.table != nil {
		return m.table, nil
	}
	text, err := m.Node.Run("conntrack", "-L", "-o", "extended,id")
	if err != nil {
		return nil, err
	}
	table, err := nettest.ParseTable(text)
	if err != nil {
		return nil, err
	}
	if want := m.next - m.first; len(table) != want {
		return nil, fmt.Errorf("the kernel of %s has %d entries, want %d", m.Node.Name, len(table), want)
	}
	m.table = table
	return table, nil
}

// inStep returns the internal cache, which must be the kernel's table.
func (m *member) inStep(ctx context.Context) (nettest.Table, error) {
	kernel, err := m.kernel()
	if err != nil {
		return nil, err
	}
	internal, err := m.Internal(ctx)
	if err != nil {
		return nil, err
	}
	if err := nettest.DiffInternal(kernel, internal).Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	return internal, nil
}

// health is what -s health of a group says: facts of the group, and of each
// peer.
type health struct {
	group map[string]string
	peers map[netip.Addr]map[string]string
}

func (m *member) health(ctx context.Context) (*health, error) {
	text, err := m.Client(ctx, "-s", "health")
	if err != nil {
		return nil, err
	}
	h, err := parseHealth(text)
	if err != nil {
		return nil, fmt.Errorf("read -s health of %s: %w", m, err)
	}
	return h, nil
}

// parseHealth reads blocks of "name: value" lines, with an empty line between
// them.
func parseHealth(text string) (*health, error) {
	h := &health{peers: map[netip.Addr]map[string]string{}}
	for block := range strings.SplitSeq(text, "\n\n") {
		facts := map[string]string{}
		for line := range strings.Lines(block) {
			name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			if _, twice := facts[name]; !ok || twice {
				return nil, fmt.Errorf("unexpected line %q", line)
			}
			facts[name] = value
		}
		if h.group == nil {
			h.group = facts
			continue
		}
		addr, err := netip.ParseAddr(facts["peer-address"])
		if err != nil || h.peers[addr] != nil {
			return nil, fmt.Errorf("block of %v: twice, or %w", addr, err)
		}
		h.peers[addr] = facts
	}
	return h, nil
}

// says reports whether a fact about another member is so.
func (h *health) says(about *member, name, value string) bool {
	return h.peers[about.addr][name] == value
}

var resendQueue = regexp.MustCompile(`queue rsqueue:\ncurrent elements:\s+(\d+)`)

// unacknowledged is the length of the resend queues together.
func (m *member) unacknowledged(ctx context.Context) (int, error) {
	out, err := m.Client(ctx, "-s", "queue")
	if err != nil {
		return 0, err
	}
	found := resendQueue.FindStringSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("no resend queue in %q", out)
	}
	return strconv.Atoi(found[1])
}

// lastHealth is for a failure message.
func (m *member) lastHealth() string {
	if !m.Running() {
		return ""
	}
	text, err := m.Client(context.Background(), "-s", "health")
	if err != nil {
		return err.Error()
	}
	return text
}
