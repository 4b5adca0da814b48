package daemon

import (
	"fmt"
	"os"
	"strconv"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
)

// setScheduler asks for the real-time policy of General { Scheduler }. Being
// refused is no reason not to run: one warning says so.
func setScheduler(log *logrus.Logger, s confparse.Scheduler) {
	if err := schedule(s); err != nil {
		log.Warnf("can't set scheduler %s priority %d: %v", s.Policy, s.Priority, err)
	}
}

// schedule sets the policy of every thread there is; threads made later
// inherit it from the one that makes them. Threads may appear while the list
// is read, so it is read until it holds no new one.
func schedule(s confparse.Scheduler) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: uint32(s.Priority)}
	if s.Policy == "FIFO" {
		attr.Policy = unix.SCHED_FIFO
	}
	done := make(map[int]bool)
	for more := true; more; {
		more = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || done[tid] {
				continue
			}
			if err := unix.SchedSetAttr(tid, &attr, 0); err != nil && err != unix.ESRCH {
				return err
			}
			done[tid], more = true, true
		}
	}
	return nil
}
