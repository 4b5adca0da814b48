package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// The contents of the ready file. keepalived multiplies the number with the
// weight that it is tracked with, and takes a file that is missing for 0: so a
// daemon that has ended leaves the file behind.
const (
	readyText    = "0\n"
	notReadyText = "1\n"
)

// writeReady puts the state into the ready file, if there is to be one. Who
// reads it sees the old state or the new one.
func (d *Daemon) writeReady(ready bool) {
	path := d.cfg.ReadyFile
	if path == "" {
		return
	}
	text := notReadyText
	if ready {
		text = readyText
	}
	if err := replaceFile(path, text); err != nil {
		d.say(saidReady, func() { d.log.Errorf("write ready file: %v", err) })
	}
}

func replaceFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(0o644) // nobody is to keep monitoring from it
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// sayReady notes a change. It is called inside the node, and writes nothing.
func (s *syncer) sayReady(ready bool) {
	if s.isReady.Swap(ready) != ready {
		notice(s.readiness)
	}
}

// keepReady writes each change.
func (d *Daemon) keepReady(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.sync.readiness:
			ready := d.sync.isReady.Load()
			d.writeReady(ready)
			if ready {
				d.say(saidReadiness, func() { d.log.Info("ready to take over: all entries of the other node are here") })
			}
		}
	}
}
