package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A Header says whose a snapshot is and when it was made.
type Header struct {
	Moment
	Seq      uint32 // the next sequence number
	Identity string
}

// Write writes a snapshot at path: to a file beside it, which takes its place
// when everything is on the disk. next appends the next piece of data to dst, at
// most 256 KiB, and returns it; nothing when there is no more. What was
// at path before is lost only when all went well.
func Write(path string, h *Header, next func(dst []byte) []byte) error {
	beside := path + ".new"
	if err := os.Remove(beside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write snapshot: %w", err)
	}
	f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	err = write(f, h, next)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		_ = os.Remove(beside)
		return fmt.Errorf("write snapshot: %w", err)
	}
	// The name is not worth an error: without it the next start finds nothing.
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}

// A blockWriter writes blocks.
type blockWriter struct {
	w   io.Writer
	sum uint32
	buf []byte // the block that is being made
}

func write(w io.Writer, h *Header, next func(dst []byte) []byte) error {
	b := blockWriter{w: w}
	if len(h.Identity) > maxBlock-headSize {
		return fmt.Errorf("the identity is too long")
	}
	b.buf = binary.BigEndian.AppendUint16([]byte(magic), version)
	if err := b.block(kindHeader, func(dst []byte) []byte { return appendHeader(dst, h) }); err != nil {
		return err
	}
	blocks := uint32(0)
	for {
		n, err := b.data(next)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		blocks++
	}
	return b.block(kindEnd, func(dst []byte) []byte { return binary.BigEndian.AppendUint32(dst, blocks) })
}

func appendHeader(dst []byte, h *Header) []byte {
	dst = append(dst, h.Boot[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.Since))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.Wall))
	dst = binary.BigEndian.AppendUint32(dst, h.Seq)
	return append(dst, h.Identity...)
}

// data writes a block of what next gives and returns its size; nothing is
// written if that is 0.
func (b *blockWriter) data(next func([]byte) []byte) (n int, err error) {
	err = b.block(kindData, func(dst []byte) []byte {
		grown := next(dst)
		n = len(grown) - len(dst)
		return grown
	})
	return n, err
}

// block appends a block to buf and writes buf. A block of data that is empty is
// left out.
func (b *blockWriter) block(kind byte, payload func([]byte) []byte) error {
	start := len(b.buf)
	b.buf = append(b.buf, kind, 0, 0, 0, 0)
	b.buf = payload(b.buf)
	n := len(b.buf) - start - blockHead
	switch {
	case n == 0 && kind == kindData:
		b.buf = b.buf[:start]
		return nil
	case n > maxBlock:
		return fmt.Errorf("a block of %d bytes is too long", n)
	}
	binary.BigEndian.PutUint32(b.buf[start+1:], uint32(n))
	b.sum = crc32.Update(b.sum, castagnoli, b.buf)
	b.buf = binary.BigEndian.AppendUint32(b.buf, b.sum)
	_, err := b.w.Write(b.buf)
	b.buf = b.buf[:0]
	return err
}
