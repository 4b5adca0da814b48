package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A waiter waits for kernel events, datagrams and the node's deadline: an
// epoll instance over the event socket, the link and a timer. Only the
// instance itself is in Go's poller, so that one event wakes one thread, and
// as long as the loop is busy none (docs/decisions/0006-one-loop-thread.md).
type waiter struct {
	file  *os.File // the epoll instance
	raw   syscall.RawConn
	timer int // timerfd

	ready  [sources]unix.EpollEvent
	n      int
	waitFn func(fd uintptr) bool
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
	w.waitFn = w.look
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

// add makes wait return when a descriptor is readable. May be called from any
// goroutine.
func (w *waiter) add(fd int, s source) (err error) {
	closed := w.raw.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s)})
	})
	if err = errors.Join(err, closed); err != nil {
		return fmt.Errorf("add descriptor to epoll instance: %w", err)
	}
	return nil
}

// wait returns the sources that are ready. The error is net.ErrClosed.
func (w *waiter) wait() (ready [sources]bool, err error) {
	if w.raw.Read(w.waitFn) != nil {
		return ready, net.ErrClosed
	}
	runtime.KeepAlive(w.file)
	for _, e := range w.ready[:w.n] {
		ready[e.Fd] = true
	}
	return ready, nil
}

// look asks what is ready, and reports whether anything is.
func (w *waiter) look(fd uintptr) bool {
	// It never blocks: the scheduler need not know.
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&w.ready[0])),
		uintptr(len(w.ready)), 0, 0, 0)
	if w.n = int(n); errno != 0 {
		w.n = 0
	}
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
