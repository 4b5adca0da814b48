package kernel

import (
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// bpfSocket is a pair of datagram sockets with a program on the receiving
// end: the kernel itself says what a program does. It needs no root.
type bpfSocket struct{ in, out int }

func newBPFSocket(t testing.TB) *bpfSocket {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
	return &bpfSocket{in: fds[0], out: fds[1]}
}

func (s *bpfSocket) load(t testing.TB, program []unix.SockFilter) {
	t.Helper()
	if len(program) == 0 {
		t.Fatal("no program")
	}
	err := unix.SetsockoptSockFprog(s.out, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err != nil {
		t.Fatalf("the kernel refuses a program of %d instructions: %v", len(program), err)
	}
}

// passes reports whether the program lets a message through, whole.
func (s *bpfSocket) passes(t testing.TB, message []byte) bool {
	t.Helper()
	if err := unix.Send(s.in, message, 0); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len(message)+1)
	n, _, err := unix.Recvfrom(s.out, buf, 0)
	if err == unix.EAGAIN {
		return false
	}
	if err != nil || n != len(message) {
		t.Fatalf("%d of %d bytes, %v", n, len(message), err)
	}
	return true
}

// TestSearch compares the decision trees, long jumps included, with a walk
// through the segments.
func TestSearch(t *testing.T) {
	s := newBPFSocket(t)
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1, 2, 3, 4, 7, 64, 257, 600, 1900} {
		for _, width := range []int64{1, 2, 1 << 20} {
			var p program
			no, yes := p.ret(0), p.ret(wholeMessage)
			values := make(map[uint32]bool, size)
			set := segments{rest: no}
			for next := int64(0); len(values) < size && next+width < 1<<32; next += 1 + r.Int64N(1<<32/int64(size)) {
				first, last := uint32(next), uint32(next+r.Int64N(width))
				set.add(first, last, yes)
				for _, v := range []uint32{first, last} {
					values[v] = true
				}
				next = int64(last)
			}
			all := set.all()
			tree := p.search(all)
			p.then(opLoadWord, 0, tree)
			if p.full {
				t.Fatalf("%d ranges need more than %d instructions", size, maxProgram)
			}
			s.load(t, p.assembled())
			for v := range values {
				for _, v := range []uint32{v - 1, v, v + 1} {
					i := len(all) - 1
					for all[i].first > v {
						i--
					}
					message := []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
					if got, want := s.passes(t, message), all[i].to == yes; got != want {
						t.Fatalf("%d ranges up to %d wide: value %#x passes: %v, want %v", size, width, v, got, want)
					}
				}
			}
		}
	}
}

// opLoadWord loads a word at a fixed offset.
const opLoadWord = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS

// TestProgramTooLong says so rather than to be wrong, and stays bounded.
func TestProgramTooLong(t *testing.T) {
	var p program
	next := p.ret(0)
	for range maxProgram - 1 {
		next = p.then(opLoadConst, 1, next)
	}
	if n := len(p.assembled()); n != maxProgram {
		t.Fatalf("%d instructions", n)
	}
	for range 100 {
		next = p.then(opLoadConst, 1, next)
	}
	if p.assembled() != nil || len(p.code) != maxProgram {
		t.Fatalf("%d instructions and no complaint", len(p.code))
	}
}

func TestSegmentsCoverEverything(t *testing.T) {
	s := segments{rest: 9}
	s.add(0, 3, 1)
	s.add(4, 4, 1)
	s.add(10, 1<<32-1, 2)
	want := []segment{{0, 1}, {5, 9}, {10, 2}}
	if got := s.all(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := (&segments{rest: 3}).all(); !slices.Equal(got, []segment{{0, 3}}) {
		t.Errorf("nothing added: %v", got)
	}
}
