package abuse_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// speakAs says that flows exist, as the other node, which does not run.
func (r *rig) speakAs(from netip.Addr, flows []flow.Flow) {
	r.Helper()
	r.OK(r.Two.B.Do(func() error {
		conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: from.AsSlice()}, net.UDPAddrFromAddrPort(linkA))
		if err != nil {
			return err
		}
		defer conn.Close()
		for i := range flows {
			message := new(wire.Options).AppendFlow(nil, wire.Header{Type: wire.CTNew, Seq: uint32(1000 + i)}, &flows[i])
			if _, err := conn.Write(message); err != nil {
				return err
			}
		}
		return nil
	}))
}

// awkward are n flows with a helper that no kernel knows and n with labels.
func awkward(n int) (flows []flow.Flow) {
	for i := range 2 * n {
		f := flow.Flow{Key: flow.Key{Proto: flow.ProtoTCP, Family: flow.IPv4, Sport: uint16(1 + i), Dport: 21}}
		copy(f.Key.Src[:], []byte{10, 99, 0, 1})
		copy(f.Key.Dst[:], []byte{172, 16, 0, 1})
		f.Status = flow.StatusConfirmed | flow.StatusSeenReply | flow.StatusAssured
		f.State, f.Timeout = 3, 3000
		f.Has = flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasStatus | flow.HasState | flow.HasTimeout
		if i%2 == 0 {
			copy(f.Helper[:], "no-such-alg")
			f.Has |= flow.HasHelper
		} else {
			f.Labels[0] = 1 << 3
			f.Has |= flow.HasLabels
		}
		flows = append(flows, f)
	}
	return flows
}

// labelled counts the entries of a's kernel that have labels.
func (r *rig) labelled() (n int) {
	r.Helper()
	table, err := r.Two.A.Kernel()
	r.OK(err)
	for _, e := range table {
		if strings.Trim(e.Raw.Labels, "\x00") != "" {
			n++
		}
	}
	return n
}

// TestKernelRefusesAttributes has flows with labels, which nobody uses here,
// and with a helper that the kernel does not know: they are committed, or
// injected, without these, which is said once with the number.
func TestKernelRefusesAttributes(t *testing.T) {
	const n = 20
	entries := func(r *rig) {
		r.Helper()
		r.Eventually("the entries", func() error {
			if got, err := r.Two.A.Count(); err != nil || got != 2*n {
				return fmt.Errorf("%d, %v", got, err)
			}
			return nil
		})
	}
	for _, how := range []string{"committed", "injected"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, func(a, b *nettest.Config) {
				a.Mode, b.Mode = "NOTRACK", "NOTRACK"
				if how == "injected" {
					a.ModeLines = []string{"DisableExternalCache on"}
				}
			})
			r.OK(r.A.Start(t.Context()))
			lines := len(r.lines(0))
			r.speakAs(neighbour, awkward(n))
			if how == "committed" {
				r.Eventually("the external cache", func() error {
					if _, external, err := r.A.Sizes(t.Context()); err != nil || external != 2*n {
						return fmt.Errorf("%d entries, %v", external, err)
					}
					return nil
				})
				r.Request(r.A, "-c")
			}
			entries(r)
			if got := r.labelled(); got != 0 {
				t.Fatalf("%d entries have labels: the test shows nothing", got)
			}
			r.Eventually("the log", func() error {
				for _, what := range []string{"labels", "helper"} {
					text := fmt.Sprintf(`%d entries were %s without their %s`, n, how, what)
					if how == "injected" { // the rest is counted in the next minute
						text = fmt.Sprintf(`\d+ entries were injected without their %s`, what)
					}
					log := strings.Join(r.lines(lines), "\n")
					if got := len(regexp.MustCompile(text).FindAllString(log, -1)); got != 1 {
						return fmt.Errorf("%d times: %s\n%s", got, text, log)
					}
				}
				return nil
			})
			r.short(lines, 6)

			// The cause goes.
			r.OK(r.Two.A.EnableLabels())
			r.OK(r.Two.A.FlushKernel())
			if how == "committed" {
				r.Request(r.A, "-c")
			} else {
				r.speakAs(neighbour, awkward(n))
			}
			entries(r)
			if got := r.labelled(); got != n {
				t.Errorf("%d entries have labels, want %d", got, n)
			}
			r.says(lines, "without their labels", 1, 1)
		})
	}
}

// mostEntries is how large a table the test of a full one fills.
const mostEntries = 600_000

// fill fills the kernel's table of a with flows that are not replicated, and
// returns them.
func (r *rig) fill() (filler flood.Load) {
	r.Helper()
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	r.OK(err)
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	r.OK(err)
	if most > mostEntries {
		r.Skipf("nf_conntrack_max is %d: the limit is the machine's, and the table too large to fill", most)
	}
	filler = flood.Load{To: most + 1000, Flow: func(i int, f *flood.Flow) {
		flood.UDPFlows(byte(i>>24), 0, 0).Flow(i, f)
		f.Dst = fillerAddress
	}}
	result, err := r.Writer(r.Two.A).Create(filler)
	if result.Failed[unix.ENOMEM] == 0 {
		r.Fatalf("the table of %d entries is not full: %+v, %v", most, result, err)
	}
	filler.To = result.OK
	return filler
}

var fillerAddress = netip.MustParseAddr("172.16.0.9")

// holds fails unless a's kernel has so many entries. To read the table would
// take too long. One that has ended counts while somebody reads the table there,
// and one that is refused for a moment.
func (r *rig) holds(want int) error {
	n, err := r.Two.A.Held()
	if err == nil && n != want {
		err = fmt.Errorf("%d entries, want %d", n, want)
	}
	return err
}

// TestKernelTableFull commits into a full table, and then injects into it.
func TestKernelTableFull(t *testing.T) {
	const n = 500
	r := newRig(t, func(a, _ *nettest.Config) { a.IgnoreAddresses = []netip.Addr{fillerAddress} })
	r.OK(r.A.Start(t.Context()))
	r.OK(r.B.Start(t.Context()))
	filler := r.fill()
	some := filler
	some.To = filler.To / 4
	full := filler.To
	r.Eventually("a full table", func() error { return r.holds(full) })
	wa, wb := r.Writer(r.Two.A), r.Writer(r.Two.B)

	lines := len(r.lines(0))
	r.Must(wb.Create(flood.UDPFlows(7, 0, n)))
	r.Eventually("the external cache", func() error {
		if _, external, err := r.A.Sizes(t.Context()); err != nil || external != n {
			return fmt.Errorf("%d entries, %v", external, err)
		}
		return nil
	})
	r.Request(r.A, "-c")
	r.says(lines, fmt.Sprintf(`\[notice\] %d entries can't be committed`, n), 1, 1)
	r.says(lines, `commit-create: Cannot allocate memory`, 1, 10)
	r.short(lines, 30)
	r.Eventually("a full table again", func() error { return r.holds(full) })
	r.Must(wa.Delete(some))
	r.Request(r.A, "-c")
	r.Eventually("all that was committed", func() error { return r.holds(full - some.To + n) })

	r.OK(r.A.Stop())
	r.A.Config.ModeLines = []string{"DisableExternalCache on"}
	r.startA()
	some.To -= n
	r.Must(wa.Create(some))
	lines = len(r.lines(0))
	r.Must(wb.Create(flood.UDPFlows(8, 0, n)))
	r.Eventually("the refusals", func() error {
		out := r.Request(r.A, "-s", "cache")
		if r.Number(out, `connections created:\s+\d+\s+failed:\s+(\d+)`) < n {
			return errors.New(out)
		}
		return nil
	})
	r.Eventually("a table as full as before", func() error { return r.holds(full) })
	r.short(lines, 25)
	r.Must(wa.Delete(some))
	r.Eventually("all flows in the kernel", func() error { return r.holds(full - some.To + n) })
	r.says(lines, "the conntrack table has room again: asking the other node", 1, 2)
	r.alive()
}
