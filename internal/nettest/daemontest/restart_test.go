package daemontest_test

import "testing"

// TestRestartWithLargeTable kills and starts a node with a large table again
// and again. The other node asks for everything as soon as it hears of it, long
// before the table is read, and must not take a part for the whole.
func TestRestartWithLargeTable(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	const many = 60000
	w := r.writer(r.two.A)
	r.must(w.Create(flows(1, 0, many)))
	r.cached(r.b, -1, many)
	for i := range 4 {
		r.a.Kill9()
		r.must(w.Delete(flows(1, i, i+1)))
		r.must(w.Create(flows(2, i, i+1)))
		r.ok(r.a.Start(t.Context()))
		r.eventually("a complete resync", func() error {
			return r.reports(r.b, "resync completed: the external cache has all entries", i+2)
		})
		r.cached(r.b, -1, many)
		r.cached(r.a, many, -1)
	}
}
