package daemon

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
)

// fakeWriter writes down what it is told and answers as outcome says.
type fakeWriter struct {
	wrote   []string
	outcome map[string]kernel.Result // by "op sport"; else what the op expects
	calls   chan struct{}
}

func (w *fakeWriter) do(op string, usual kernel.Outcome) func([]flow.Flow, []kernel.Result) error {
	return func(flows []flow.Flow, results []kernel.Result) error {
		for i := range flows {
			what := fmt.Sprintf("%s %d", op, flows[i].Sport)
			w.wrote = append(w.wrote, fmt.Sprintf("%s mark %d", what, flows[i].Mark))
			r, ok := w.outcome[what]
			if !ok {
				r = kernel.Result{Outcome: usual}
			}
			results[i] = r
		}
		if w.calls != nil {
			w.calls <- struct{}{}
		}
		return nil
	}
}

func (w *fakeWriter) Commit(f []flow.Flow, r []kernel.Result) error {
	return w.do("create", kernel.Created)(f, r)
}

func (w *fakeWriter) Update(f []flow.Flow, r []kernel.Result) error {
	return w.do("update", kernel.Updated)(f, r)
}

func (w *fakeWriter) Delete(f []flow.Flow, r []kernel.Result) error {
	return w.do("delete", kernel.Deleted)(f, r)
}

func (w *fakeWriter) Renew(f []flow.Flow, r []kernel.Result) error {
	return w.do("renew", kernel.Updated)(f, r)
}

func (w *fakeWriter) CreateExpect(x *flow.Expect) error {
	w.wrote = append(w.wrote, fmt.Sprintf("expect %d", x.Tuple.Dport))
	return nil
}

func (w *fakeWriter) DeleteExpect(x *flow.Expect) error {
	w.wrote = append(w.wrote, fmt.Sprintf("unexpect %d", x.Tuple.Dport))
	return nil
}

func message(op flow.Op, sport uint16, mark uint32) flow.Event {
	return flow.Event{Op: op, Flow: flow.Flow{Key: flow.Key{Family: flow.IPv4, Proto: flow.ProtoUDP, Sport: sport}, Has: flow.HasMark, Mark: mark}}
}

func related(ev flow.Event) flow.Event {
	ev.Flow.Has |= flow.HasMaster
	return ev
}

const mNew, mUpd, mDel, mRenew = flow.New, flow.Update, flow.Destroy, flow.Renew

func TestInjectorFoldsAndSorts(t *testing.T) {
	tests := []struct {
		name   string
		events []flow.Event
		want   []string
	}{
		{"one of each", []flow.Event{message(mNew, 1, 1), message(mUpd, 2, 2), message(mDel, 3, 3)},
			[]string{"delete 3 mark 3", "update 2 mark 2", "create 1 mark 1"}},
		{"new and updates", []flow.Event{message(mNew, 1, 1), message(mUpd, 1, 2), message(mUpd, 1, 3)}, []string{"create 1 mark 3"}},
		{"updates", []flow.Event{message(mUpd, 1, 2), message(mUpd, 1, 3)}, []string{"update 1 mark 3"}},
		{"new again", []flow.Event{message(mUpd, 1, 2), message(mNew, 1, 3)}, []string{"create 1 mark 3"}},
		{"the end wins", []flow.Event{message(mNew, 1, 1), message(mUpd, 1, 2), message(mDel, 1, 2)}, []string{"delete 1 mark 2"}},
		{"another flow of the tuple", []flow.Event{message(mDel, 1, 1), message(mNew, 1, 2), message(mUpd, 1, 3)},
			[]string{"delete 1 mark 3", "create 1 mark 3"}},
		{"the same, first heard of as an update", []flow.Event{message(mDel, 1, 1), message(mUpd, 1, 2)},
			[]string{"delete 1 mark 2", "create 1 mark 2"}},
		{"a renewal", []flow.Event{message(mRenew, 1, 1), message(mRenew, 1, 2)}, []string{"renew 1 mark 2"}},
		{"renewals go with what else is written", []flow.Event{message(mNew, 1, 1), message(mRenew, 1, 2), message(mUpd, 2, 1), message(mRenew, 2, 2), message(mDel, 3, 1), message(mRenew, 3, 2)},
			[]string{"delete 3 mark 1", "update 2 mark 1", "create 1 mark 1"}},
		{"and before it", []flow.Event{message(mRenew, 1, 1), message(mNew, 1, 2), message(mRenew, 2, 1), message(mUpd, 2, 2), message(mRenew, 3, 1), message(mDel, 3, 2)},
			[]string{"delete 3 mark 2", "update 2 mark 2", "create 1 mark 2"}},
		{"masters first", []flow.Event{related(message(mNew, 1, 1)), related(message(mUpd, 2, 2)), message(mUpd, 3, 3), message(mNew, 4, 4)},
			[]string{"update 3 mark 3", "create 4 mark 4", "update 2 mark 2", "create 1 mark 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := &fakeWriter{}
			j := newInjector(w, 100, nil)
			j.put(tt.events, nil)
			j.write(j.next)
			if !slices.Equal(w.wrote, tt.want) {
				t.Errorf("wrote %q, want %q", w.wrote, tt.want)
			}
			j.next.reset()
			if j.write(j.next); len(w.wrote) != len(tt.want) {
				t.Errorf("wrote again %q", w.wrote)
			}
		})
	}
}

func TestInjectorKeepsWhatAnUpdateLeavesOut(t *testing.T) {
	j := newInjector(&fakeWriter{}, 100, nil)
	first, second := message(mNew, 1, 7), message(mUpd, 1, 0)
	first.Flow.Has |= flow.HasLabels
	first.Flow.Labels[0] = 8
	second.Flow.Has = flow.HasState
	second.Flow.State = 5
	j.put([]flow.Event{first, second}, nil)
	got := j.next.flows[0].Flow
	if got.Mark != 7 || got.Labels[0] != 8 || got.State != 5 || !got.Has.Has(flow.HasMark|flow.HasLabels|flow.HasState) {
		t.Errorf("folded to %+v", got)
	}
}

func TestInjectorCounts(t *testing.T) {
	failed := kernel.Result{Outcome: kernel.Failed, Errno: syscall.EINVAL}
	w := &fakeWriter{outcome: map[string]kernel.Result{
		"create 2": failed, "create 3": {Outcome: kernel.Updated},
		"update 12": failed, "update 13": {Outcome: kernel.Created}, "update 14": {Outcome: kernel.Replaced},
		"delete 22": failed, "delete 23": {Outcome: kernel.Absent},
	}}
	var said []string
	j := newInjector(w, 100, func(what string, f *flow.Flow, why error) {
		said = append(said, fmt.Sprintf("%s %d %v", what, f.Sport, why))
	})
	var events []flow.Event
	for _, sport := range []uint16{1, 2, 3, 11, 12, 13, 14, 21, 22, 23} {
		events = append(events, message([]flow.Op{mNew, mUpd, mDel}[sport/10], sport, 0))
	}
	j.put(events, nil)
	got := j.write(j.next)
	if want := (InjectStats{Created: 3, CreateFailed: 1, Updated: 2, UpdateFailed: 1, Destroyed: 1, DestroyFailed: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if want := []string{"inject-del 22 invalid argument", "inject-upd 12 invalid argument", "inject-add 2 invalid argument"}; !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
}

// What is to be renewed and is not there is told to who wanted it; nothing of
// it counts as a message of the peer.
func TestInjectorRenews(t *testing.T) {
	w := &fakeWriter{outcome: map[string]kernel.Result{
		"renew 2": {Outcome: kernel.Absent}, "renew 3": {Outcome: kernel.Failed, Errno: syscall.EPERM}, "renew 4": {Outcome: kernel.Absent},
	}}
	var lost []uint16
	var said []string
	j := newInjector(w, 100, func(what string, f *flow.Flow, why error) {
		said = append(said, fmt.Sprintf("%s %d %v", what, f.Sport, why))
	})
	j.lost = func(flows []flow.Flow) {
		for i := range flows {
			lost = append(lost, flows[i].Sport)
		}
	}
	for range 2 {
		for sport := range uint16(5) {
			j.put([]flow.Event{message(mRenew, sport, 0)}, nil)
		}
		j.flush()
	}
	if want := []uint16{2, 4, 2, 4}; !slices.Equal(lost, want) {
		t.Errorf("lost %v, want %v", lost, want)
	}
	if want := "hold-renew 3 operation not permitted"; len(said) != 2 || said[0] != want {
		t.Errorf("said %q, want %q twice", said, want)
	}
	if got := j.Stats(); got != (InjectStats{}) {
		t.Errorf("counted %+v", got)
	}
}

func TestInjectorExpectations(t *testing.T) {
	w := &fakeWriter{}
	j := newInjector(w, 100, nil)
	x := func(op flow.Op, dport uint16) flow.ExpectEvent {
		ev := flow.ExpectEvent{Op: op}
		ev.Expect.Tuple.Dport = dport
		return ev
	}
	j.put([]flow.Event{message(mNew, 1, 0)}, []flow.ExpectEvent{x(mNew, 21), x(mUpd, 22), x(mDel, 21)})
	j.write(j.next)
	if want := []string{"create 1 mark 0", "expect 21", "expect 22", "unexpect 21"}; !slices.Equal(w.wrote, want) {
		t.Errorf("wrote %q, want %q", w.wrote, want)
	}
}

// While the kernel is busy the backlog has each flow once, and no more flows
// than the limit.
func TestInjectorBacklogIsBounded(t *testing.T) {
	w := &fakeWriter{calls: make(chan struct{})}
	j := newInjector(w, 10, nil)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { j.run(ctx); close(done) }()
	for range 1000 {
		for sport := range uint16(12) {
			j.put([]flow.Event{message(mUpd, sport, uint32(sport))}, nil)
		}
		notice(j.wake)
	}
	j.mu.Lock()
	waiting := len(j.next.flows)
	j.mu.Unlock()
	if waiting > 10 {
		t.Errorf("%d flows wait", waiting)
	}
	<-w.calls
	for j.Stats().Updated == 0 {
		select {
		case <-w.calls:
		default:
		}
	}
	if j.Stats().CreateFailed == 0 {
		t.Error("flows beyond the limit are not counted")
	}
	go func() {
		for range w.calls {
		}
	}()
	stop()
	<-done
	close(w.calls)
}

// Little is written by whoever brings it, unless somebody is writing: then it
// would overtake what came before.
func TestInjectorFlush(t *testing.T) {
	w := &fakeWriter{}
	j := newInjector(w, 1000, nil)
	j.flush()
	j.put([]flow.Event{message(mNew, 1, 1)}, nil)
	j.flush()
	if want := []string{"create 1 mark 1"}; !slices.Equal(w.wrote, want) || j.Stats().Created != 1 {
		t.Errorf("wrote %q, counted %+v", w.wrote, j.Stats())
	}
	j.writing.Lock()
	j.put([]flow.Event{message(mNew, 2, 1)}, nil)
	j.flush()
	j.writing.Unlock()
	for sport := range uint16(injectAtOnce) {
		j.put([]flow.Event{message(mNew, 100+sport, 1)}, nil)
	}
	j.flush()
	if len(w.wrote) != 1 || len(j.wake) != 1 {
		t.Errorf("wrote %q, woken %d", w.wrote, len(j.wake))
	}
}

func TestBacklogGivesMemoryBack(t *testing.T) {
	b := newBacklog()
	for i := range backlogKept + 1 {
		ev := message(mUpd, uint16(i), 0)
		b.add(&ev, 1<<20)
	}
	b.sort()
	b.reset()
	if cap(b.flows) != 0 {
		t.Errorf("room for %d flows is kept", cap(b.flows))
	}
}

func BenchmarkBacklog(b *testing.B) {
	log := newBacklog()
	b.ReportAllocs()
	for i := range b.N {
		ev := message(mUpd, uint16(i), 0)
		log.add(&ev, 1<<20)
		if i%1200 == 0 {
			log.sort()
			log.reset()
		}
	}
}
