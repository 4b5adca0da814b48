package ftfw

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata with what the engine does now")

// TestTranscripts plays testdata/*.txt, one protocol fact a file. A line is a
// comment (#), a command, or what the engine answered to the command before it
// (->). Commands, arguments after the first being optional or repeatable:
//
//	start seq=100 window=300 queue=131072 hold=3s|forever reorder=50ms startup-resync
//	recv DATA|ALIVE|RESYNC|ACK|NACK seq [from..to] [HELLO] [HELLO_BACK]
//	recv type=9 flags=0x20 seq
//	unreadable DATA seq [HELLO]      its body cannot be read
//	enqueue ref...    forget ref    forget-all    resync    bulk-done    leave
//	run               pop everything and flush
//	wait 1500ms       let time pass, ticking and running whenever due
//	blocked 5s        let time pass, ticking but sending nothing
//	queues            show both queues
//	stats             show the counters that are not zero
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("the engine does otherwise (-file +engine):\n%s", d)
			}
		})
	}
}

// player is one engine and its owner's side.
type player struct {
	t   *testing.T
	now time.Duration
	e   *Engine
	out strings.Builder

	kept map[uint32]wire.Header // what came too early
}

func play(t *testing.T, script string) string {
	p := &player{t: t, kept: map[uint32]wire.Header{}}
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "->") {
			continue
		}
		p.out.WriteString(line)
		if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
			p.command(words[0], words[1:])
			p.effects()
		}
	}
	return p.out.String()
}

func (p *player) say(format string, args ...any) {
	fmt.Fprintf(&p.out, "-> "+format+"\n", args...)
}

func (p *player) command(verb string, args []string) {
	p.t.Helper()
	switch verb {
	case "start":
		p.start(args)
	case "recv":
		p.receive(p.header(args), p.e.Receive)
	case "unreadable":
		p.receive(p.header(args), p.e.Refuse)
	case "enqueue":
		for _, a := range args {
			if p.e.Enqueue(Ref(p.number(a))) {
				p.say("pin %s", a)
			}
		}
	case "forget":
		p.e.Forget(Ref(p.number(args[0])))
	case "forget-all":
		p.e.ForgetAll()
	case "resync":
		p.e.RequestResync()
	case "leave":
		p.e.Leave(p.now)
	case "bulk-done":
		p.e.BulkDone()
	case "run":
		p.run("")
	case "wait":
		p.wait(p.duration(args[0]), p.run)
	case "blocked":
		p.wait(p.duration(args[0]), func(string) {})
	case "queues":
		p.queues()
	case "stats":
		p.stats()
	default:
		p.t.Fatalf("unknown command %q", verb)
	}
}

var verdictNames = map[Verdict]string{Deliver: "deliver", Control: "control", Drop: "drop", Bad: "bad", Hold: "hold"}

var eventNames = map[engine.EventKind]string{
	BulkWanted: "bulk wanted", PeerRestarted: "peer restarted",
	ResyncStarted: "resync started", ResyncComplete: "resync complete",
}

func (p *player) start(args []string) {
	cfg := Config{FirstSeq: 100, ACKWindow: 300, ResendQueue: 131072}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "seq":
			cfg.FirstSeq = p.number(value)
		case "window":
			cfg.ACKWindow = int(p.number(value))
		case "queue":
			cfg.ResendQueue = int(p.number(value))
		case "hold":
			cfg.HelloHold = p.duration(value)
		case "reorder":
			cfg.Reorder = p.duration(value)
		case "startup-resync":
			cfg.StartupResync = true
		default:
			p.t.Fatalf("unknown setting %q", a)
		}
	}
	p.e = New(cfg, p.now)
}

// receive takes a message, and those it held up.
func (p *player) receive(h wire.Header, take func(time.Duration, wire.Header) Verdict) {
	v := take(p.now, h)
	p.say("%s", verdictNames[v])
	if v == Hold {
		p.kept[h.Seq] = h
	}
	p.held()
}

func (p *player) held() {
	for seq, ok := p.e.Held(p.now); ok; seq, ok = p.e.Held(p.now) {
		p.say("%d: %s", seq, verdictNames[p.e.Receive(p.now, p.kept[seq])])
	}
}

// header reads the arguments of recv.
func (p *player) header(args []string) (h wire.Header) {
	flags := map[string]uint8{
		"ALIVE": wire.FlagALIVE, "RESYNC": wire.FlagRESYNC, "ACK": wire.FlagACK,
		"NACK": wire.FlagNACK, "HELLO": wire.FlagHELLO, "HELLO_BACK": wire.FlagHELLOBack,
	}
	for _, a := range args {
		from, to, isRange := strings.Cut(a, "..")
		name, value, isField := strings.Cut(a, "=")
		switch f := flags[a]; {
		case a == "DATA":
		case f != 0:
			h.Flags |= f
			if f&(wire.FlagHELLO|wire.FlagHELLOBack) == 0 {
				h.Type = wire.Control
			}
		case isRange:
			h.From, h.To = p.number(from), p.number(to)
		case isField && name == "type":
			h.Type = uint8(p.number(value))
		case isField && name == "flags":
			h.Flags = uint8(p.number(value))
		default:
			h.Seq = p.number(a)
		}
	}
	return h
}

func (p *player) number(s string) uint32 {
	p.t.Helper()
	v, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		p.t.Fatal(err)
	}
	return uint32(v)
}

func (p *player) duration(s string) time.Duration {
	p.t.Helper()
	if s == "forever" {
		return Forever
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

func (p *player) run(prefix string) {
	sent := false
	for f, ok := p.e.Pop(p.now); ok; f, ok = p.e.Pop(p.now) {
		p.say("%s%s", prefix, frameText(f))
		sent = true
	}
	if sent {
		p.e.Flushed(p.now)
	}
}

func (p *player) wait(d time.Duration, run func(prefix string)) {
	until := p.now + d
	for p.e.Deadline() <= until {
		p.now = max(p.now, p.e.Deadline())
		p.e.Tick(p.now)
		p.held()
		run(fmt.Sprintf("at %v: ", p.now))
		p.effects()
	}
	p.now = until
}

// effects shows what the engine wants of its owner.
func (p *player) effects() {
	p.e.Released(func(r Ref) { p.say("unpin %d", r) })
	for ev, ok := p.e.NextEvent(); ok; ev, ok = p.e.NextEvent() {
		s := "event: " + eventNames[ev.Kind]
		if ev.Clean {
			s += ", clean"
		}
		p.say("%s", s)
	}
}

func (p *player) queues() {
	tx, resend := p.e.Pending()
	p.say("tx %d, resend %d", tx, resend)
	for r := range p.e.ResendQueue() {
		what := "object"
		if !r.Object {
			what = "control"
		}
		p.say("%s seq:%d flags:%d", what, r.Seq, r.Flags)
	}
}

func (p *player) stats() {
	v := reflect.ValueOf(p.e.Stats())
	var s []string
	for i := range v.NumField() {
		if n := v.Field(i).Uint(); n != 0 {
			s = append(s, fmt.Sprintf("%s=%d", v.Type().Field(i).Name, n))
		}
	}
	p.say("%s", strings.Join(s, " "))
}

func frameText(f Frame) string {
	h := f.Header
	if f.Object {
		return strings.TrimSpace(fmt.Sprintf("object %d seq %d %s", f.Ref, h.Seq, helloText(h.Flags)))
	}
	s := fmt.Sprintf("%s seq %d", h.Class(), h.Seq)
	if h.Flags&(wire.FlagACK|wire.FlagNACK) != 0 {
		s += fmt.Sprintf(" %d..%d", h.From, h.To)
	}
	return strings.TrimSpace(s + " " + helloText(h.Flags))
}

func helloText(flags uint8) string {
	var s []string
	if flags&wire.FlagHELLO != 0 {
		s = append(s, "HELLO")
	}
	if flags&wire.FlagHELLOBack != 0 {
		s = append(s, "HELLO_BACK")
	}
	return strings.Join(s, " ")
}
