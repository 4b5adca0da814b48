package failover

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// SoakPrinter tells a person how a soak goes.
type SoakPrinter struct {
	W     io.Writer
	lines int
}

// Intro tells what is about to happen.
func (p *SoakPrinter) Intro(s *Soak) {
	r := &s.Rig.Traffic
	fmt.Fprintf(p.W, `Soak of %v: two firewalls, a and b, keepalived, %d changes of connections a
second, and a failover every %v to %v. Through them, translated, are open all
the time: %d TCP connections that talk, %d quiet ones, %d UDP flows.

`, s.Length, s.Rate, s.Shortest, s.Longest, len(r.Of(Busy)), len(r.Of(Idle)), len(r.Of(UDP)))
}

// Failover prints a line; the columns have their names above them now and then.
func (p *SoakPrinter) Failover(r SoakReport) {
	if p.lines%20 == 0 {
		fmt.Fprintln(p.W, "  #   time   failover                     addresses    script  TCP stall    UDP gap   alive")
	}
	p.lines++
	t := r.Total()
	fmt.Fprintf(p.W, "%3d %6s   %s > %s  %-18s  %6d ms %6d ms  %6d ms  %6d ms   %d of %d\n", p.lines, clock(r.After),
		r.From, r.To, r.Cause, ms(r.TakeOver), ms(r.Script), ms(r.Max(Busy)), ms(r.Max(UDP)), t.Alive, t.Asked)
}

func ms(d time.Duration) int64 { return d.Round(time.Millisecond).Milliseconds() }

func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// Summary prints all that counts, and the verdict.
func (p *SoakPrinter) Summary(r *SoakResult) {
	fmt.Fprintf(p.W, "\n== Summary: %v, %d failovers, %d changes of connections (%d a second)\n\n", r.Took.Round(time.Second),
		len(r.Failovers), r.Changes, int(float64(r.Changes)/r.Took.Seconds()))
	p.stalls(r)
	p.connections(r)
	p.usage(r)
	p.tables(r)
	fmt.Fprintln(p.W, "Compared entry by entry. What a backup purges is told to nobody, so as with conntrackd\nthe master may still have it in its external cache.")
	if r.CutSeen == nil {
		fmt.Fprintln(p.W, "\nA connection cut on purpose, after all this, was missed at once.")
	}
	if err := r.Err(); err != nil {
		fmt.Fprintf(p.W, "\nFAILED\n%v\n", err)
		return
	}
	fmt.Fprintln(p.W, "\nPASSED: no connection lost, memory, descriptors and threads flat, tables equal.")
}

// table prints rows of a table, the columns of which are divided by tabs, and
// an empty line.
func (p *SoakPrinter) table(rows func(line func(format string, args ...any))) {
	w := tabwriter.NewWriter(p.W, 0, 0, 2, ' ', tabwriter.AlignRight)
	rows(func(format string, args ...any) { fmt.Fprintf(w, format+"\t\n", args...) })
	w.Flush()
	fmt.Fprintln(p.W)
}

func (p *SoakPrinter) stalls(r *SoakResult) {
	p.table(func(line func(string, ...any)) {
		line("failovers, ms\tmedian\tlongest")
		for _, x := range []struct {
			name string
			of   func(SoakReport) time.Duration
		}{
			{"until the addresses moved", func(r SoakReport) time.Duration { return r.TakeOver }},
			{"primary-backup.sh", func(r SoakReport) time.Duration { return r.Script }},
			{"TCP stall", func(r SoakReport) time.Duration { return r.Max(Busy) }},
			{"UDP gap", func(r SoakReport) time.Duration { return r.Max(UDP) }},
		} {
			var all []time.Duration
			for _, f := range r.Failovers {
				all = append(all, x.of(f))
			}
			if slices.Sort(all); len(all) > 0 {
				line("%s\t%d\t%d", x.name, ms(all[len(all)/2]), ms(all[len(all)-1]))
			}
		}
	})
}

func (p *SoakPrinter) connections(r *SoakResult) {
	names := []struct {
		role Role
		name string
	}{{Busy, "TCP, talking"}, {Idle, "TCP, quiet"}, {UDP, "UDP"}}
	p.table(func(line func(string, ...any)) {
		line("connections\topen\tlost")
		for _, x := range names {
			lost := 0
			for f := range r.Lost {
				if f.Role == x.role {
					lost++
				}
			}
			line("%s\t%d\t%d", x.name, r.Flows[x.role], lost)
		}
	})
}

func (p *SoakPrinter) usage(r *SoakResult) {
	p.table(func(line func(string, ...any)) {
		line("daemon\tMiB\tthen\tdescriptors\tthen\tthreads\tthen\tflat")
		for _, u := range r.Usage {
			begin, end, err := u.periods()
			if err != nil {
				line("%s\t%v", u.Firewall, err)
				continue
			}
			line("%s\t%.1f\t%.1f\t%d\t%d\t%d\t%d\t%s", u.Firewall, mib(begin), mib(end),
				begin.Descriptors, end.Descriptors, begin.Threads, end.Threads, yesNo(u.Flat()))
		}
	})
	fmt.Fprint(p.W, `The first fifth of the time does not count. Of the first half of the rest and of
the second: the median of the memory, the lowest of the counts.

`)
}

func mib(s Sample) float64 { return float64(s.RSS) / 1024 }

func yesNo(err error) string {
	if err != nil {
		return "NO"
	}
	return "yes"
}

func (p *SoakPrinter) tables(r *SoakResult) {
	p.table(func(line func(string, ...any)) {
		line("tables at the end\tkernel\tinternal\tthe other's external\tequal")
		for _, t := range r.Tables {
			role, external := "backup", "not told"
			if t.Master {
				role, external = "master", fmt.Sprint(t.External)
			}
			line("%s, %s\t%d\t%d\t%s\t%s", t.Firewall, role, t.Kernel, t.Internal, external, yesNo(t.Err))
		}
	})
}
