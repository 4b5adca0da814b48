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
	w.enc.buf = w.enc.buf[:0]
	w.base = w.sequence(1)
	w.enc.flow(reqGet, w.base, &flow.Flow{Key: f.Key, Has: flow.HasZone})
	w.enc.demandAck(0)
	err = w.askFor(func(m *message) error {
		if m.typ != msgCtNew {
			return nil
		}
		found = true
		return DecodeFlow(m.body, f)
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up flow: %w", err)
	}
	return found, nil
}
