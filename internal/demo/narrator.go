package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/failover"
)

// narrator tells a person what happens.
type narrator struct{ w io.Writer }

func newNarrator(w io.Writer) *narrator { return &narrator{w} }

func (n *narrator) say(format string, args ...any) { fmt.Fprintf(n.w, format+"\n", args...) }

// names are what people call the daemons.
var names = map[nettest.Kind]string{nettest.Go: "conntrackgo", nettest.C: "conntrackd"}

func (n *narrator) intro(s settings) {
	n.say(`A client reaches a server through two firewalls, a and b. One is master and
has the addresses, the other is backup. keepalived decides which (VRRP, a sign
of life every 0.2 s). All of it runs in network namespaces of this machine.

                  .-- firewall a --.
        client ---+      | sync    +--- server
                  '-- firewall b --'

The firewalls drop what they don't know and translate addresses (SNAT and DNAT,
IPv4 and IPv6). A connection lives only while its firewall remembers it.`)
	if s.entries > 0 {
		n.say("The tables hold %d more connections.", s.entries)
	}
}

func (n *narrator) chapter(s settings, daemon bool) {
	switch {
	case !daemon:
		n.say("\n== Without a daemon")
	case s.a == s.b:
		n.say("\n== With %s on both firewalls", names[s.a])
	default:
		n.say("\n== With %s on a and %s on b", names[s.a], names[s.b])
	}
}

func (n *narrator) started() { n.say("Both firewalls are up. a is master, b is backup.") }

func (n *narrator) connected(s settings, daemon bool) {
	n.say("%d TCP connections are open (%d busy, %d idle), and %d UDP flows talk.", s.connections, busy, s.connections-busy, udp)
	switch {
	case daemon:
		n.say("a has told b about every one of them.")
	default:
		n.say("Nobody tells b about them.")
	}
}

// happening describes a cause, with the firewall it happens to.
var happening = map[string]string{
	failover.Stop.Name:     "keepalived is stopped on %s",
	failover.Crash.Name:    "keepalived crashes on %s (kill -9)",
	failover.LanDown.Name:  "the client's cable is pulled from %s",
	failover.WanDown.Name:  "the server's cable is pulled from %s",
	failover.PowerCut.Name: "%s loses power: all links, all processes, the whole table",
}

func cause(r *failover.Result) string { return fmt.Sprintf(happening[r.Cause], r.From) }

func (n *narrator) failover(number int, r *failover.Result) {
	t, u := tcp(r), r.Count[failover.UDP]
	n.say("\nFailover %d: %s.", number, cause(r))
	n.say("  %s has the addresses after %d ms. It holds %d of %d TCP connections.", r.To, ms(r.TakeOver), r.Held, r.Before)
	if t.Alive == 0 {
		n.say("  No TCP connection works any more. %d of %d UDP flows do: they began anew.", u.Alive, u.Asked)
		return
	}
	n.say("  Busy connections stood still for %d ms, the slowest for %d ms.", ms(r.Median(failover.Busy)), ms(r.Max(failover.Busy)))
	n.say("  %d of %d TCP connections and %d of %d UDP flows carry data again.", t.Alive, t.Asked, u.Alive, u.Asked)
}

func (n *narrator) recovered(r *failover.Result) {
	n.say("  %s is repaired, comes back as backup, and knows all connections.", r.From)
}

func (n *narrator) summary(with, without []*failover.Result) {
	n.say("\n== Summary\n")
	w := tabwriter.NewWriter(n.w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\t\tTCP connections\t\t\tTCP stall, ms\t\tUDP gap, ms\t")
	fmt.Fprintln(w, "daemon\tfailover\tbefore\tduring\tafter\tmedian\tlongest\tlongest\t")
	row := func(daemon string, r *failover.Result) {
		after := tcp(r).Alive
		median, longest := fmt.Sprint(ms(r.Median(failover.Busy))), fmt.Sprint(ms(r.Max(failover.Busy)))
		if after == 0 {
			median, longest = "for ever", "for ever"
		}
		fmt.Fprintf(w, "%s\t%s, %s\t%d\t%d\t%d\t%s\t%s\t%d\t\n", daemon, r.Cause, r.From, r.Before, r.Held, after, median, longest, ms(r.Max(failover.UDP)))
	}
	for _, r := range with {
		row("with", r)
	}
	for _, r := range without {
		row("without", r)
	}
	w.Flush()
	n.say(`
before: in the master's table; during: in the new master's table when it took
over; after: carry data again. A stall is the longest time without an answer.`)
}

// tcp counts the TCP connections that work.
func tcp(r *failover.Result) failover.Count {
	b, i := r.Count[failover.Busy], r.Count[failover.Idle]
	return failover.Count{Alive: b.Alive + i.Alive, Asked: b.Asked + i.Asked}
}

func ms(d time.Duration) int64 { return d.Round(time.Millisecond).Milliseconds() }
