package daemontest_test

import "testing"

// TestRestartWithLargeTable kills and starts a node with a large table again
// and again. The other node asks for everything as soon as it hears of it, long
// before the table is read, and must not take a part for the whole.
func TestRestartWithLargeTable(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	const many = 60000
	w := r.Writer(r.Two.A)
	r.Must(w.Create(flows(1, 0, many)))
	r.cached(r.B, -1, many)
	for i := range 4 {
		r.A.Kill9()
		r.Must(w.Delete(flows(1, i, i+1)))
		r.Must(w.Create(flows(2, i, i+1)))
		r.OK(r.A.Start(t.Context()))
		r.Eventually("a complete resync", func() error {
			return r.reports(r.B, "resync completed: the external cache has all entries", i+2)
		})
		r.cached(r.B, -1, many)
		r.cached(r.A, many, -1)
	}
}
