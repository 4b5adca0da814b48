package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A waiter waits for kernel events, datagrams and the node's timer: an epoll
// instance over the event socket, the link and a timer. Only the instance
// itself is in Go's poller, and a source that has reported is not looked at
// until the next wait, so that nothing but a wait is ever woken up
// (docs/decisions/0006-one-loop-thread.md).
type waiter struct {
	file  *os.File // the epoll instance
	raw   syscall.RawConn
	timer int // timerfd

	fds    [sources]atomic.Int32 // plus one; 0 is none yet
	asleep [sources]bool         // reported or paused; the loop's own
	ready  [sources]unix.EpollEvent
	n      int
	parked bool // the last wait did

	lookFn          func(fd uintptr) bool // made once, so that waiting does not allocate
	armFn, disarmFn func(fd uintptr)
}

// A source is what the waiter waits for.
type source int32

const (
	sourceTimer source = iota
	sourceEvents
	sourceLink
	sources
)

func newWaiter() (w *waiter, err error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll instance: %w", err)
	}
	w = &waiter{timer: -1}
	w.lookFn, w.armFn, w.disarmFn = w.look, w.arm, w.disarm
	if err = unix.SetNonblock(epoll, true); err != nil { // NewFile asks for it
		return nil, errors.Join(err, unix.Close(epoll))
	}
	w.file = os.NewFile(uintptr(epoll), "loop")
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, w.close())
	}
	if w.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("make timer: %w", err), w.close())
	}
	return w, w.add(w.timer, sourceTimer)
}

// add makes the waiter watch a descriptor. May be called from any goroutine,
// once for each source.
func (w *waiter) add(fd int, s source) (err error) {
	w.fds[s].Store(int32(fd) + 1) // first: it may be ready, and be armed again, at once
	closed := w.raw.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: watched, Fd: int32(s)})
	})
	if err = errors.Join(err, closed); err != nil {
		return fmt.Errorf("add descriptor to epoll instance: %w", err)
	}
	return nil
}

// watched reports once that a descriptor is readable, paused nothing.
const (
	watched = unix.EPOLLIN | unix.EPOLLONESHOT
	paused  = unix.EPOLLONESHOT
)

// has reports whether a source was added.
func (w *waiter) has(s source) bool { return w.fds[s].Load() != 0 }

// wait returns the sources that are ready. The error is net.ErrClosed.
func (w *waiter) wait() (ready [sources]bool, err error) {
	w.parked = false
	if w.raw.Control(w.armFn) != nil || w.raw.Read(w.lookFn) != nil {
		return ready, net.ErrClosed
	}
	for _, e := range w.ready[:w.n] {
		ready[e.Fd] = true
		w.asleep[e.Fd] = true
	}
	return ready, nil
}

// pause makes every source but the timer silent until the next wait, for a
// loop that looks for itself.
func (w *waiter) pause() error {
	if w.raw.Control(w.disarmFn) != nil {
		return net.ErrClosed
	}
	return nil
}

func (w *waiter) arm(epoll uintptr) {
	for s, asleep := range w.asleep {
		if asleep {
			w.modify(epoll, source(s), watched)
			w.asleep[s] = false
		}
	}
}

func (w *waiter) disarm(epoll uintptr) {
	for _, s := range []source{sourceEvents, sourceLink} {
		if w.has(s) && !w.asleep[s] {
			w.modify(epoll, s, paused)
			w.asleep[s] = true
		}
	}
}

func (w *waiter) modify(epoll uintptr, s source, events uint32) {
	e := unix.EpollEvent{Events: events, Fd: int32(s)}
	_, _, _ = unix.RawSyscall6(unix.SYS_EPOLL_CTL, epoll, unix.EPOLL_CTL_MOD, uintptr(w.fds[s].Load()-1), uintptr(unsafe.Pointer(&e)), 0, 0)
}

// look asks what is ready, and reports whether anything is.
func (w *waiter) look(fd uintptr) bool {
	// It never blocks: the scheduler need not know.
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&w.ready[0])),
		uintptr(len(w.ready)), 0, 0, 0)
	if w.n = int(n); errno != 0 {
		w.n = 0
	}
	w.parked = w.parked || w.n == 0
	return w.n > 0
}

// set makes the timer ready after d, at once if d is not positive.
func (w *waiter) set(d time.Duration) {
	its := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(d, 1)))}
	_, _, _ = unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(w.timer), 0, uintptr(unsafe.Pointer(&its)), 0, 0, 0)
}

// close ends a wait under way.
func (w *waiter) close() error {
	err := w.file.Close()
	if w.timer >= 0 {
		err = errors.Join(err, unix.Close(w.timer))
	}
	return err
}
