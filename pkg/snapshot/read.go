package snapshot

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A File is a snapshot that was found to be whole.
type File struct {
	Header
	Blocks int // of data

	f    *os.File
	in   *bufio.Reader
	data blockReader
}

// Open opens the snapshot at path and reads all of it to see that it is whole.
// The error is os.ErrNotExist if there is none; after any other the file is
// there and is not to be used.
func Open(path string) (*File, error) {
	// Not to wait for whoever might write into a pipe.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	s := &File{f: f, in: bufio.NewReaderSize(nil, 64<<10)}
	if err = s.verify(); err == nil {
		err = s.rewind()
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return s, nil
}

// Close closes the file.
func (s *File) Close() error { return s.f.Close() }

// Next returns the next block of data, which is valid until it is called again;
// io.EOF after the last.
func (s *File) Next() ([]byte, error) {
	kind, payload, err := s.data.next()
	if err != nil {
		return nil, err
	}
	if kind != kindData {
		return nil, io.EOF
	}
	return payload, nil
}

// verify checks the file, without keeping more of it than the header.
func (s *File) verify() error {
	if err := s.trusted(); err != nil {
		return err
	}
	s.in.Reset(s.f)
	h, blocks, err := Verify(s.in)
	s.Header, s.Blocks = h, blocks
	return err
}

// trusted refuses what somebody else may have written.
func (s *File) trusted() error {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return errors.New("it is no regular file")
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("its mode is %v: others than its owner have rights to it", info.Mode().Perm())
	case !ok || int(st.Uid) != os.Geteuid():
		return errors.New("it belongs to another user")
	}
	return nil
}

// rewind goes to the first block of data.
func (s *File) rewind() error {
	if _, err := s.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	s.in.Reset(s.f)
	s.data = blockReader{r: s.in}
	if err := s.data.begin(); err != nil {
		return err
	}
	_, _, err := s.data.next()
	return err
}

// Verify reads a whole snapshot and returns its header and how many blocks of
// data it has. The error says what is wrong with it.
func Verify(r io.Reader) (h Header, blocks int, err error) {
	b := blockReader{r: r}
	if err := b.begin(); err != nil {
		return h, 0, err
	}
	kind, payload, err := b.next()
	if err != nil {
		return h, 0, err
	}
	if kind != kindHeader || len(payload) < headSize {
		return h, 0, errors.New("it has no header")
	}
	parseHeader(payload, &h)
	for ; ; blocks++ {
		kind, payload, err = b.next()
		switch {
		case err != nil:
			return h, 0, err
		case kind == kindData && len(payload) > 0:
			continue
		case kind != kindEnd || len(payload) != 4 || binary.BigEndian.Uint32(payload) != uint32(blocks):
			return h, 0, fmt.Errorf("block %d is none of ours", blocks)
		}
		if n, err := io.ReadFull(r, make([]byte, 1)); n != 0 || err != io.EOF {
			return h, 0, errors.New("there is something behind its end")
		}
		return h, blocks, nil
	}
}

func parseHeader(p []byte, h *Header) {
	copy(h.Boot[:], p)
	h.Since = time.Duration(binary.BigEndian.Uint64(p[16:]))
	h.Wall = time.Duration(binary.BigEndian.Uint64(p[24:]))
	h.Seq = binary.BigEndian.Uint32(p[32:])
	h.Identity = string(p[headSize:])
}

// A blockReader reads blocks and checks their sums.
type blockReader struct {
	r   io.Reader
	sum uint32
	buf []byte
}

// begin reads magic and version.
func (b *blockReader) begin() error {
	p, err := b.read(0, preamble)
	switch {
	case err != nil || string(p[:len(magic)]) != magic:
		return errors.New("it is no snapshot")
	case binary.BigEndian.Uint16(p[len(magic):]) != version:
		return fmt.Errorf("it is of version %d, and we know version %d", binary.BigEndian.Uint16(p[len(magic):]), version)
	}
	b.sum = crc32.Update(0, castagnoli, p)
	return nil
}

// next reads a block.
func (b *blockReader) next() (kind byte, payload []byte, err error) {
	p, err := b.read(0, blockHead)
	if err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(p[1:])
	if n > maxBlock {
		return 0, nil, errDamaged
	}
	if p, err = b.read(blockHead, int(n)+blockTail); err != nil {
		return 0, nil, err
	}
	end := blockHead + int(n)
	b.sum = crc32.Update(b.sum, castagnoli, p[:end])
	if binary.BigEndian.Uint32(p[end:]) != b.sum {
		return 0, nil, errDamaged
	}
	return p[0], p[blockHead:end], nil
}

var errDamaged = errors.New("it is damaged: a checksum is wrong")

// read reads n bytes into buf from at on, and returns all of buf up to there.
func (b *blockReader) read(at, n int) ([]byte, error) {
	if need := at + n; cap(b.buf) < need {
		b.buf = append(make([]byte, 0, max(need, 64<<10)), b.buf[:at]...)
	}
	b.buf = b.buf[:at+n]
	_, err := io.ReadFull(b.r, b.buf[at:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it is cut short")
	}
	return b.buf, err
}
