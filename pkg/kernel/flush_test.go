package kernel

import (
	"context"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

func TestFlush(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	flows, _ := everyFlow()
	for i := range 1000 {
		flows = append(flows, with(newFlow(flow.IPv6, flow.ProtoUDP), sport(uint16(1+i)), zone(2)))
	}
	commit(t, w, Created, flows...)

	udp, batches := 0, 0
	for i := range flows {
		if flows[i].Proto == flow.ProtoUDP {
			udp++
		}
	}
	n, err := w.Flush(context.Background(), Flushing{
		Filter: func(f *flow.Flow) bool { return f.Proto != flow.ProtoUDP },
		Batch:  5,
		Before: func() { batches++ },
	})
	if err != nil || n != len(flows)-udp {
		t.Errorf("flushed %d, %v, want %d", n, err, len(flows)-udp)
	}
	if want := (n + 4) / 5; batches < want || batches > want+1 {
		t.Errorf("%d batches of 5 for %d flows", batches, n)
	}
	if left := len(table(t)); left != udp {
		t.Errorf("%d flows left, want %d", left, udp)
	}
	if n, err := w.Flush(context.Background(), Flushing{}); err != nil || n != udp {
		t.Errorf("flushed %d, %v, want %d", n, err, udp)
	}
	if left := len(table(t)); left != 0 {
		t.Errorf("%d flows left", left)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.Flush(ctx, Flushing{}); err == nil {
		t.Error("flush went on after its context ended")
	}
}
