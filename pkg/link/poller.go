package link

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A poller is an epoll instance with a timer, for what waits for several
// descriptors: it is readable while one of them is ready.
type poller struct {
	fd, timer int
	events    [maxReady]unix.EpollEvent
}

// maxReady is how many descriptors one look reports. The rest stay ready.
const maxReady = 8

// tagTimer is the tag of the timer; others are not negative.
const tagTimer = -1

func newPoller() (p *poller, err error) {
	p = &poller{fd: -1, timer: -1}
	if p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make epoll instance: %w", err)
	}
	if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err == nil {
		err = p.watch(p.timer, tagTimer, unix.EPOLLIN)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make timer: %w", err), p.close())
	}
	return p, nil
}

// watch adds a descriptor; closing it removes it.
func (p *poller) watch(fd int, tag int32, events uint32) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: tag})
}

// change changes what is waited for.
func (p *poller) change(fd int, tag int32, events uint32) {
	e := unix.EpollEvent{Events: events, Fd: tag}
	_, _, _ = unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_MOD, uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
}

// ready returns what is ready now, without waiting: the tag is in Fd.
func (p *poller) ready() []unix.EpollEvent {
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), maxReady, 0, 0, 0)
	if e != 0 {
		return nil
	}
	return p.events[:n]
}

// set makes the timer fire once after d, or with every an interval, each d.
func (p *poller) set(d time.Duration, every bool) {
	its := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(d, 1)))}
	if every {
		its.Interval = its.Value
	}
	_ = unix.TimerfdSettime(p.timer, 0, &its, nil)
}

// fired silences the timer after it has fired.
func (p *poller) fired() {
	var expirations [8]byte
	_, _ = unix.Read(p.timer, expirations[:])
}

// noTimer ends the timer for good.
func (p *poller) noTimer() {
	_ = unix.Close(p.timer)
	p.timer = -1
}

func (p *poller) close() error {
	var errs []error
	for _, fd := range []int{p.fd, p.timer} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	p.fd, p.timer = -1, -1
	return errors.Join(errs...)
}
