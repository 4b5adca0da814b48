package snapshot

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var sample = Header{
	Moment:   Moment{Boot: [16]byte{1, 2, 3, 15: 16}, Since: 5 * time.Hour, Wall: 1_700_000_000 * time.Second},
	Seq:      0xfffffff0,
	Identity: "FTFW; UDP 10.0.0.1 to 10.0.0.2 port 3780",
}

// pieces hands out data as Write wants it.
func pieces(all ...string) func([]byte) []byte {
	return func(dst []byte) []byte {
		if len(all) == 0 {
			return dst
		}
		dst = append(dst, all[0]...)
		all = all[1:]
		return dst
	}
}

// text is a whole snapshot.
func text(t testing.TB, data ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, &sample, pieces(data...)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readAll opens a snapshot and reads its data.
func readAll(t testing.TB, path string) (h Header, data []string, err error) {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		return h, nil, err
	}
	defer s.Close()
	for {
		b, err := s.Next()
		if errors.Is(err, io.EOF) {
			return s.Header, data, nil
		}
		if err != nil {
			return s.Header, data, err
		}
		data = append(data, string(b))
	}
}

func TestWriteAndRead(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", maxBlock/16)
	for name, data := range map[string][]string{
		"nothing": nil,
		"some":    {"first", "second", "\x00"},
		"long":    {long, "x", long},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			for range 2 { // the second time there is one already
				if err := Write(path, &sample, pieces(data...)); err != nil {
					t.Fatal(err)
				}
			}
			h, got, err := readAll(t, path)
			if err != nil || h != sample || strings.Join(got, "|") != strings.Join(data, "|") {
				t.Errorf("%d blocks, header %+v, error %v", len(got), h, err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestDamage alters each bit of a file in turn, cuts it at each place, and
// repeats, leaves out and exchanges its blocks: nothing of it is accepted.
func TestDamage(t *testing.T) {
	good := text(t, "one block", "another1", "another2")
	if _, n, err := Verify(bytes.NewReader(good)); n != 3 || err != nil {
		t.Fatalf("%d blocks, %v", n, err)
	}
	refused := func(what string, at int, b []byte) {
		if _, _, err := Verify(bytes.NewReader(b)); err == nil {
			t.Errorf("%s at %d of %d is accepted", what, at, len(good))
		}
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			refused("a flipped bit", i, bad)
		}
		refused("a cut", i, good[:i])
		refused("a byte put in", i, append(append(bytes.Clone(good[:i]), 0), good[i:]...))
		refused("a byte left out", i, append(bytes.Clone(good[:i]), good[i+1:]...))
		for _, size := range []int{4, 512} { // a sector of zeroes
			bad := bytes.Clone(good)
			if clear(bad[i:min(i+size, len(bad))]); !bytes.Equal(bad, good) {
				refused("zeroes", i, bad)
			}
		}
	}
	refused("a byte more", len(good), append(bytes.Clone(good), 0))
	refused("the file twice", len(good), append(bytes.Clone(good), good...))

	// The blocks of data, from the first to behind the last.
	first := preamble + blockHead + headSize + len(sample.Identity) + blockTail
	one, two := blockHead+9+blockTail, blockHead+8+blockTail
	parts := [][]byte{good[:first], good[first : first+one], good[first+one : first+one+two], good[first+one+two : first+one+2*two], good[first+one+2*two:]}
	if string(parts[3][blockHead:][:8]) != "another2" {
		t.Fatalf("the blocks are elsewhere: %q", parts[3])
	}
	for _, order := range [][]int{{0, 1, 3, 2, 4}, {0, 1, 2, 4}, {0, 1, 2, 2, 3, 4}, {0, 1, 2, 2, 4}, {0, 2, 3, 4}, {0, 4}, {1, 2, 3, 4}, {0, 1, 2, 3}, {0, 0, 1, 2, 3, 4}} {
		var b []byte
		for _, i := range order {
			b = append(b, parts[i]...)
		}
		refused("blocks in another order", order[1], b)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	put := func(b []byte, mode fs.FileMode) {
		t.Helper()
		os.Remove(path)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	other := text(t)
	other[len(magic)+1]++
	for name, tt := range map[string]struct {
		put  func()
		want string
	}{
		"empty":         {func() { put(nil, 0o600) }, "no snapshot"},
		"something":     {func() { put([]byte("something that is long enough"), 0o600) }, "no snapshot"},
		"other version": {func() { put(other, 0o600) }, "version 2"},
		"cut":           {func() { b := text(t, "x"); put(b[:len(b)-1], 0o600) }, "cut short"},
		"damaged":       {func() { b := text(t, "x"); b[len(b)-1]++; put(b, 0o600) }, "checksum"},
		"too long":      {func() { b := text(t, "x"); b[preamble+1] = 255; put(b, 0o600) }, "damaged"},
		"readable":      {func() { put(text(t), 0o644) }, "others than its owner"},
		"directory":     {func() { os.Remove(path); os.Mkdir(path, 0o700) }, "no regular file"},
		"pipe":          {func() { os.Remove(path); unix.Mkfifo(path, 0o600) }, "no regular file"},
		"link": {func() {
			put(text(t), 0o600)
			os.Rename(path, path+"2")
			os.Symlink(path+"2", path)
		}, "too many levels"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.put()
			if _, _, err := readAll(t, path); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	os.RemoveAll(path)
	if _, err := Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if os.Geteuid() == 0 {
		put(text(t), 0o600)
		if err := os.Chown(path, 12345, 0); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readAll(t, path); err == nil || !strings.Contains(err.Error(), "another user") {
			t.Errorf("of another user: %v", err)
		}
	}
}

// TestChangedWhileRead alters a file between the check and the use.
func TestChangedWhileRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := Write(path, &sample, pieces(strings.Repeat("a", 100<<10), strings.Repeat("b", 100<<10))); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("X"), 150<<10); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(); err != nil {
		t.Errorf("the first block: %v", err)
	}
	if _, err := s.Next(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the block that has changed: %v", err)
	}
}

func TestAge(t *testing.T) {
	cfg := Config{MaxAge: time.Minute}
	after := func(since, wall time.Duration) Moment {
		m := sample.Moment
		m.Since += since
		m.Wall += wall
		return m
	}
	booted := after(5*time.Second, 5*time.Second)
	booted.Boot[0]++
	for _, tt := range []struct {
		name     string
		identity string
		now      Moment
		age      time.Duration
		want     string
	}{
		{"at once", sample.Identity, after(0, 0), 0, ""},
		{"a restart", sample.Identity, after(3*time.Second, 3*time.Second), 3 * time.Second, ""},
		{"just in time", sample.Identity, after(time.Minute, time.Minute), time.Minute, ""},
		{"the clock was adjusted", sample.Identity, after(3*time.Second, -2*time.Second), 3 * time.Second, ""},
		{"too old", sample.Identity, after(time.Minute+1, time.Minute), 0, "old, more than 1m0s"},
		{"from the future", sample.Identity, after(-time.Second, 0), 0, "future"},
		{"the clock was set forward", sample.Identity, after(3*time.Second, time.Hour), 0, "the clock was set by 59m57s"},
		{"the clock was set back", sample.Identity, after(3*time.Second, -time.Hour), 0, "the clock was set by -1h0m3s"},
		{"the machine was stopped for an hour", sample.Identity, after(time.Second, time.Hour+time.Second), 0, "the clock was set by 1h0m0s"},
		{"booted since", sample.Identity, booted, 0, "before the system was booted"},
		{"of the other node", "FTFW; UDP 10.0.0.2 to 10.0.0.1 port 3780", after(1, 1), 0, "another node's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			age, err := cfg.Age(&sample, tt.identity, tt.now)
			if tt.want == "" && (err != nil || age != tt.age) {
				t.Errorf("age %v, %v, want %v", age, err, tt.age)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("age %v, %v, want %q", age, err, tt.want)
			}
		})
	}
}

func TestNow(t *testing.T) {
	before := time.Duration(time.Now().UnixNano())
	m, err := Now()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Now()
	if err != nil {
		t.Fatal(err)
	}
	if m.Boot == [16]byte{} || m.Boot != again.Boot || again.Since < m.Since || m.Since <= 0 || m.Wall < before-time.Second {
		t.Errorf("%+v, then %+v", m, again)
	}
}

// TestFailedWrite leaves what was there, and nothing else.
func TestFailedWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := Write(path, &sample, pieces("old")); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, &sample, pieces("new", strings.Repeat("x", maxBlock+1))); err == nil {
		t.Error("a block that is too long was written")
	}
	_, data, err := readAll(t, path)
	if err != nil || len(data) != 1 || data[0] != "old" {
		t.Errorf("%q, %v", data, err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := Write(filepath.Join(path, "no", "directory"), &sample, pieces()); err == nil {
		t.Error("written where no directory is")
	}
}

// TestFullDisk writes to a file system of 64 KiB, in a mount namespace of its
// own: that of a thread that ends with the test.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	type result struct {
		small, large error
		data         []string
	}
	results := make(chan result, 1)
	skipped := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		for _, step := range []func() error{
			func() error { return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS) },
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k") },
		} {
			if err := step(); err != nil {
				skipped <- err.Error()
				return
			}
		}
		var r result
		path := filepath.Join(dir, "state")
		r.small = Write(path, &sample, pieces("old"))
		r.large = Write(path, &sample, pieces(strings.Repeat("x", 40<<10), strings.Repeat("y", 40<<10)))
		if s, err := Open(path); err == nil {
			if b, err := s.Next(); err == nil {
				r.data = append(r.data, string(b))
			}
			s.Close()
		}
		left, _ := filepath.Glob(path + ".*")
		r.data = append(r.data, left...)
		results <- r
	}()
	select {
	case why := <-skipped:
		if os.Getenv("CI") == "true" {
			t.Fatalf("no mount namespace: %s", why)
		}
		t.Skipf("no mount namespace: %s", why)
	case r := <-results:
		if r.small != nil || !errors.Is(r.large, unix.ENOSPC) {
			t.Errorf("small: %v, large: %v, want ENOSPC", r.small, r.large)
		}
		if len(r.data) != 1 || r.data[0] != "old" {
			t.Errorf("left: %q", r.data)
		}
	}
}

// FuzzVerify feeds files to the reader. What it accepts is what the writer makes
// of the same content, to the last byte.
func FuzzVerify(f *testing.F) {
	f.Add(text(f))
	f.Add(text(f, "one"))
	f.Add(text(f, "one", "two", strings.Repeat("three", 1000)))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, blocks, err := Verify(bytes.NewReader(b))
		if err != nil {
			return
		}
		r := blockReader{r: bytes.NewReader(b)}
		if err := r.begin(); err != nil {
			t.Fatal(err)
		}
		var data []string
		for {
			kind, p, err := r.next()
			if err != nil {
				t.Fatal(err)
			}
			if kind == kindEnd {
				break
			}
			if kind == kindData {
				data = append(data, string(p))
			}
		}
		var again bytes.Buffer
		if err := write(&again, &h, pieces(data...)); err != nil {
			t.Fatal(err)
		}
		if len(data) != blocks || !bytes.Equal(again.Bytes(), b) {
			t.Errorf("accepted %d bytes with %d blocks, the writer makes %d bytes of %d", len(b), blocks, again.Len(), len(data))
		}
	})
}

func BenchmarkWriteAndRead(b *testing.B) {
	const blocks = 1000 // of 40 KiB: 500,000 entries
	path := filepath.Join(b.TempDir(), "state")
	block := strings.Repeat("x", 40<<10)
	b.SetBytes(blocks * int64(len(block)))
	for range b.N {
		n := 0
		err := Write(path, &sample, func(dst []byte) []byte {
			if n++; n > blocks {
				return dst
			}
			return append(dst, block...)
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, data, err := readAll(b, path); err != nil || len(data) != blocks {
			b.Fatal(len(data), err)
		}
	}
}
