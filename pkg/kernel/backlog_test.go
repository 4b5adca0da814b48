package kernel

import "testing"

func TestBacklog(t *testing.T) {
	ownNetNS(t)
	e := openEvents(t, Config{BufferSize: 1 << 20, BufferMaxGrowth: 1 << 20})
	backlog := func() int {
		t.Helper()
		used, size, err := e.Backlog()
		if err != nil || size != e.Stats().Buffer {
			t.Fatalf("%d bytes in all, want %d, %v", size, e.Stats().Buffer, err)
		}
		return used
	}
	if used := backlog(); used != 0 {
		t.Errorf("%d bytes wait before the first event", used)
	}
	const n = 100
	apply(t, openWriter(t, WriterConfig{}).Commit, udpFlows(n))
	if used := backlog(); used < n*200 || used > n*EventCost {
		t.Errorf("%d events wait in %d bytes, more than %d each or too few", n, used, EventCost)
	}
	readN(t, e, n)
	if used := backlog(); used != 0 {
		t.Errorf("%d bytes wait after the last event", used)
	}
	_ = e.Close()
	if _, _, err := e.Backlog(); err == nil {
		t.Error("a closed socket has a backlog")
	}
}
