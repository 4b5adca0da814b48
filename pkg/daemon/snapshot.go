package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
	"github.com/conntrackgo/conntrackgo/pkg/snapshot"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

const (
	// snapshotChunk is how many entries are read or written per entry into the node.
	snapshotChunk = 512
	// snapshotPatience bounds how long the end waits for the disk: a service
	// manager kills after 90 s.
	snapshotPatience = 20 * time.Second
	// snapshotAhead is how far above the numbers of its last life a node
	// begins: what the network still delivers of them is old to any peer.
	snapshotAhead = 3 * 4096
)

// handover is the snapshot that was found at the start.
type handover struct {
	file *snapshot.File // nil: none, or not to be used
	age  time.Duration
	// left is set while the file still has what the node has not: the end must
	// not replace it.
	left bool
}

// identity names the relation between the nodes that a snapshot is of.
func (d *Daemon) identity() string {
	var b strings.Builder
	b.WriteString(d.cfg.Node.Mode.String())
	for i := range d.cfg.Links {
		l := &d.cfg.Links[i]
		fmt.Fprintf(&b, "; %s %s", l.Transport, l.Local)
		if l.Transport == link.Multicast {
			fmt.Fprintf(&b, " on %s %s", l.Interface, l.MulticastInterface)
		} else {
			fmt.Fprintf(&b, " to %s", l.Peer)
		}
		fmt.Fprintf(&b, " port %d", l.Port)
	}
	return b.String()
}

// openSnapshot looks for the snapshot of the last life and returns the first
// sequence number of this one.
func (d *Daemon) openSnapshot() (firstSeq uint32) {
	firstSeq = uint32(d.started.Unix())
	path := d.cfg.Snapshot.Path
	if path == "" {
		return firstSeq
	}
	dir := filepath.Dir(path)
	if err := unix.Access(dir, unix.W_OK); err != nil { // else the end would be the first to tell
		d.log.Warnf("snapshot %s will not be written: %s: %v", path, dir, err)
	}
	f, age, err := d.findSnapshot(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return firstSeq
	case err != nil:
		d.log.Warnf("snapshot %s is not used: %v", path, err)
		return firstSeq
	}
	d.handover = handover{file: f, age: age, left: true}
	if again := f.Seq + snapshotAhead; wire.Before(firstSeq, again) {
		firstSeq = again
	}
	return firstSeq
}

func (d *Daemon) findSnapshot(path string) (*snapshot.File, time.Duration, error) {
	f, err := snapshot.Open(path)
	if err != nil {
		return nil, 0, err
	}
	now, err := snapshot.Now()
	if err == nil {
		var age time.Duration
		if age, err = d.cfg.Snapshot.Age(&f.Header, d.identity(), now); err == nil {
			return f, age, nil
		}
	}
	_ = f.Close()
	return nil, 0, err
}

// restore takes the snapshot into the node, before the other node is heard. It
// counts once: what ends from now on must not come back.
func (d *Daemon) restore() {
	h := &d.handover
	if h.file == nil {
		return
	}
	defer h.file.Close()
	path, total := d.cfg.Snapshot.Path, 0
	for {
		b, err := h.file.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		taken, stopped := 0, false
		d.beside(func(n *node.Group, now time.Duration) {
			if stopped = d.sync.closed; stopped || err != nil {
				return
			}
			taken, err = n.Pair().Restore(now, h.age, b)
		})
		total += taken
		if stopped {
			return
		}
		if err != nil {
			d.enter(func(n *node.Group, _ time.Duration) { n.Pair().DropRestored() })
			h.left = false
			d.log.Warnf("snapshot %s is not used: %v", path, err)
			return
		}
	}
	h.left = false
	if err := os.Remove(path); err != nil {
		d.log.Errorf("remove used snapshot: %v", err)
	}
	d.log.Infof("restored %d entries of the other node from %s, written %d seconds ago", total, path, int(h.age.Seconds()))
}

// handOver writes the snapshot for the next life. The node is at rest.
func (d *Daemon) handOver() {
	path := d.cfg.Snapshot.Path
	if d.sync == nil || path == "" || d.handover.left {
		return
	}
	started := time.Now()
	done := make(chan error, 1)
	var total int
	go func() {
		var err error
		total, err = d.writeSnapshot(path)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			d.log.Errorf("%v: the next start begins without the other node's entries", err)
			return
		}
		d.log.Infof("wrote a snapshot of %d bytes to %s in %.3f seconds", total, path, time.Since(started).Seconds())
	case <-time.After(snapshotPatience):
		d.log.Errorf("write snapshot: %s took more than %v: not waiting any longer", path, snapshotPatience)
	}
}

func (d *Daemon) writeSnapshot(path string) (total int, err error) {
	h := snapshot.Header{Identity: d.identity()}
	if h.Moment, err = snapshot.Now(); err != nil {
		return 0, fmt.Errorf("write snapshot: %w", err)
	}
	d.enter(func(n *node.Group, _ time.Duration) { h.Seq = n.Pair().NextSeq() })
	var c node.SnapshotCursor
	err = snapshot.Write(path, &h, func(dst []byte) []byte {
		before := len(dst)
		d.enter(func(n *node.Group, now time.Duration) { dst = n.Pair().Snapshot(dst, now, &c, snapshotChunk) })
		total += len(dst) - before
		return dst
	})
	return total, err
}
