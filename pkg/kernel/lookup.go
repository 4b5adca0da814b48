package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// Lookup reads the entry with the key of f into f. It reports false if there
// is none. Errors wrap the errno.
func (w *Writer) Lookup(f *flow.Flow) (found bool, err error) {
	w.flow = flow.Flow{Key: f.Key, Has: flow.HasZone}
	w.enc.buf = w.enc.buf[:0]
	w.base = w.sequence(1)
	w.enc.flow(reqGet, w.base, &w.flow)
	w.enc.demandAck(0)
	w.seen = false
	err = w.askFor(w.seeFn)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up flow: %w", err)
	}
	if w.seen {
		*f = w.found
	}
	return w.seen, nil
}

// see takes the answer to a look.
func (w *Writer) see(m *message) error {
	if m.typ != msgCtNew {
		return nil
	}
	w.seen = true
	return DecodeFlow(m.body, &w.found)
}
