package link

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Each script is a list of words: TIME in milliseconds, then h1 (heard on link
// 1), u1 or d1 (its interface is up or down) or t (a tick), t3 if
// the other node has not answered for three seconds, then the link that
// is current, and the one announced if that is another.
func TestFailover(t *testing.T) {
	for _, c := range []struct {
		name   string
		links  int
		home   int
		goHome bool
		script string
	}{
		{"nothing happens", 2, 0, false, "0 h0 0, 1000 h0 0, 1500 t 0, 9000 h0 0, 9500 t 0"},
		{"interface down and up: it stays", 2, 0, false, "0 h0 0, 100 d0 1, 150 h1 1, 200 u0 1, 60000 h1 1, 60500 t 1"},
		{"the Default link first, then in order", 3, 1, false, "0 d1 0, 1 d0 2, 2 u0 2, 3 d2 0, 4 u1 0"},
		{"all down: the last stays, and the first to come is taken", 2, 0, false, "0 d1 0, 1 d0 0, 2 u1 1"},
		{"heard on a worse link: after a moment", 2, 0, false, "0 h0 0, 50 h1 0, 150 h1 1"},
		{"heard on a worse link, and never on this one", 2, 0, false, "0 h1 1"},
		{"heard on a better link: at once", 2, 0, false, "0 h1 1, 1 h1 1, 2 h0 0"},
		{"heard on a link that is down here", 2, 0, false, "0 h0 0, 1 d1 0, 5000 h1 0"},
		{"silence: one after the other, ever slower; the one that worked stays announced", 2, 0, false,
			"0 h0 0, 2900 t 0, 3000 t 1/0, 5900 t 1/0, 6000 t 0, 9000 t 0, 12000 t 1/0, 18000 t 0, 29900 t 0, 30000 t 1/0"},
		{"silence, and the other one answers", 2, 0, false, "0 h0 0, 3000 t 1/0, 3500 h1 1, 6400 t 1, 6500 t 0/1"},
		{"silence, and this one comes back", 2, 0, false, "0 h0 0, 3000 t 1/0, 3500 h0 0"},
		{"silence, and only one is up", 2, 0, false, "0 h0 0, 1 d1 0, 9000 t 0"},
		{"a peer that never says anything", 3, 0, false, "2900 t 0, 3000 t 1/0, 6000 t 2/0, 9000 t 0, 12000 t 0, 15000 t 1/0"},
		{"back to the Default link", 2, 0, true, "0 d0 1, 100 u0 1, 5000 h1 1, 8000 h1 1, 10099 t 1, 10100 t 0, 10101 h1 0, 10200 h0 0"},
		{"the other node does not follow", 2, 0, true,
			// It is on link 1 and hears nothing on 0. The next return waits longer.
			"0 d0 1, 100 u0 1, 10050 h1 1, 10100 t 0, 12000 h1 0, 12100 h1 1, 30000 h1 1, 32099 t 1, 32099 h1 1, 32100 t 0"},
		{"a Default link that fails again and again", 2, 0, true,
			"0 d0 1, 0 u0 1, 10000 t 0, 10001 d0 1, 10002 u0 1, 30000 h1 1, 30000 t 1, 30001 t 0, 30002 d0 1, 30003 u0 1, 70000 h1 1, 70001 t 1, 70002 t 0"},
		{"heard and not answered: the next one, and the words on the old one lead nobody back", 2, 0, false,
			"0 h0 0, 2900 h0 0, 2900 t2 0, 3000 t2 0, 3400 t2.9 0, 3500 t3 1/0, 3900 h0 1/0, 4000 h1 1, 4500 t 1, 60000 h1 1, 60500 t 1"},
		{"not answered on any link: in ever longer intervals", 2, 0, false,
			"0 h0 0, 1500 h0 0, 3000 t3 1/0, 4900 h0 1/0, 5000 h0 0, 7900 h0 0, 7900 t7 0, 8000 t8 1/0, 10000 h0 0, 12800 h0 0, 15700 h0 0, 15900 t15 0, 16000 t16 1/0"},
		{"not answered by a node that was away", 2, 0, false, "0 h0 0, 2999 t2 0, 2999 h0 0, 70000 h0 0, 70000 t70 0, 72900 h0 0, 72900 t70 0, 73000 t70 1/0"},
		{"not answered, and only one is up", 2, 0, false, "0 h0 0, 1 d1 0, 9000 h0 0, 9000 t9 0"},
		{"no return while all links are tried", 2, 0, true, "0 d0 1, 0 u0 1, 9000 t 0/1, 12000 t 1, 15500 t 1, 16000 h1 1, 16500 t 1, 20000 h1 1, 21999 t 1, 22000 t 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			running := make([]bool, c.links)
			for i := range running {
				running[i] = true
			}
			f := newFailover(running, c.home, c.goHome, 3*time.Second)
			for _, step := range strings.Split(c.script, ", ") {
				w := strings.Fields(step)
				ms, err := strconv.Atoi(w[0])
				if err != nil {
					t.Fatal(err)
				}
				now, was := time.Duration(ms)*time.Millisecond, f.current
				var o outcome
				switch i := int(w[1][len(w[1])-1] - '0'); w[1][0] {
				case 'h':
					o = f.hear(now, i)
				case 'u', 'd':
					f.state(now, i, w[1][0] == 'u')
					o = f.choose(now)
				default:
					var unanswered time.Duration
					if w[1] != "t" {
						if unanswered, err = time.ParseDuration(w[1][1:] + "s"); err != nil {
							t.Fatal(err)
						}
					}
					o = f.tick(now, unanswered)
				}
				got := fmt.Sprint(f.current)
				if f.announced != f.current {
					got += fmt.Sprintf("/%d", f.announced)
				}
				if got != w[2] {
					t.Fatalf("at %s: link %s", step, got)
				}
				if (o == moved || o == failed) != (was != f.current) {
					t.Errorf("at %s: outcome %d", step, o)
				}
			}
		})
	}
}

func TestFailoverStart(t *testing.T) {
	for _, c := range []struct {
		running string
		home    int
		want    int
	}{{"uu", 0, 0}, {"uu", 1, 1}, {"du", 0, 1}, {"dd", 1, 1}, {"ddu", 1, 2}} {
		running := make([]bool, len(c.running))
		for i := range running {
			running[i] = c.running[i] == 'u'
		}
		if f := newFailover(running, c.home, false, 0); f.current != c.want || f.announced != c.want {
			t.Errorf("%s, home %d: link %d", c.running, c.home, f.current)
		}
	}
}

// Without a time of silence nobody tries another link.
func TestFailoverWithoutSilence(t *testing.T) {
	f := newFailover([]bool{true, true}, 0, false, 0)
	f.hear(0, 0)
	if o := f.tick(time.Hour, time.Hour); o != unchanged || f.current != 0 {
		t.Errorf("link %d, outcome %d", f.current, o)
	}
}

// Two nodes that begin on different links, and hear each other in each of the
// possible orders, end up on one link.
func TestFailoverAgrees(t *testing.T) {
	for delay := range 20 {
		nodes := [2]*failover{newFailover([]bool{true, true}, 0, false, 0), newFailover([]bool{true, true}, 0, false, 0)}
		nodes[1].current = 1
		type word struct {
			at time.Duration
			on int
		}
		var ways [2][]word // to each
		for now := time.Duration(0); now < time.Second; now += time.Millisecond {
			for i, f := range nodes {
				for len(ways[i]) > 0 && ways[i][0].at <= now {
					f.hear(now, ways[i][0].on)
					ways[i] = ways[i][1:]
				}
				later := now + time.Duration(delay+i)*time.Millisecond/2
				ways[1-i] = append(ways[1-i], word{later, f.current})
			}
		}
		if nodes[0].current != nodes[1].current {
			t.Errorf("delay %d: links %d and %d", delay, nodes[0].current, nodes[1].current)
		}
	}
}

// What nobody listened to was no silence.
func TestFailoverListens(t *testing.T) {
	f := newFailover([]bool{true, true}, 0, false, 3*time.Second)
	f.listen(time.Minute)
	if o := f.tick(time.Minute+2900*time.Millisecond, 0); o != unchanged {
		t.Errorf("outcome %d", o)
	}
	if o := f.tick(time.Minute+3*time.Second, 0); o != moved {
		t.Errorf("outcome %d", o)
	}
}
