package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// cpuTime is what a process has used, user and system, all threads, those that
// ended included, and its children that ended (the C daemon forks to dump).
func cpuTime(pid int) (time.Duration, error) {
	// clock_getcpuclockid(3): counts nanoseconds, where /proc has ticks.
	const perProcess, scheduler = 0, 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|perProcess|scheduler), &ts); err != nil {
		return 0, fmt.Errorf("read CPU clock of %d: %w", pid, err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	children, err := parseChildrenTime(string(stat))
	return time.Duration(ts.Nano()) + children, err
}

// userHZ is the unit of /proc/PID/stat on Linux.
const userHZ = 100

// parseChildrenTime reads cutime and cstime of /proc/PID/stat.
func parseChildrenTime(stat string) (time.Duration, error) {
	// The command's name, in parentheses, may hold anything.
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 15 {
		return 0, errors.New("read CPU time: line of /proc/PID/stat is short")
	}
	user, err := strconv.ParseInt(f[13], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	system, err := strconv.ParseInt(f[14], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(user+system) * time.Second / userHZ, nil
}

// switches counts how often the threads of a process went to sleep or were
// interrupted.
func switches(pid int) (n int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return 0, err
		}
		one, err := parseSwitches(string(text))
		if err != nil {
			return 0, err
		}
		n += one
	}
	return n, nil
}

func parseSwitches(status string) (int, error) {
	voluntary, err := number(status, "\nvoluntary_ctxt_switches:")
	if err != nil {
		return 0, err
	}
	other, err := number(status, "\nnonvoluntary_ctxt_switches:")
	return int(voluntary + other), err
}

// resident is a process's resident memory in bytes.
func resident(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	kb, err := number(string(b), "\nVmRSS:")
	return kb * 1024, err
}

// schedulerOf names the scheduling class of a process.
func schedulerOf(pid int) (string, error) {
	attr, err := unix.SchedGetAttr(pid, 0)
	if err != nil {
		return "", fmt.Errorf("read scheduling class of %d: %w", pid, err)
	}
	names := map[uint32]string{0: "SCHED_OTHER", 1: "SCHED_FIFO", 2: "SCHED_RR", 3: "SCHED_BATCH", 5: "SCHED_IDLE"}
	if name, ok := names[attr.Policy]; ok {
		return name, nil
	}
	return fmt.Sprintf("class %d", attr.Policy), nil
}

// drops counts the conntrack events that did not fit into the buffer of a
// daemon's event socket. It is the kernel's own count, the same for both.
func drops(n *nettest.Node) (lost int, err error) {
	err = n.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netlink")
		if err == nil {
			lost, err = parseDrops(string(text))
		}
		return err
	})
	return lost, err
}

// parseDrops sums the drops of the netfilter sockets that listen to groups.
func parseDrops(text string) (int, error) {
	const netfilter = "12"
	total := 0
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if i == 0 {
			if len(f) < 9 || f[1] != "Eth" || f[3] != "Groups" || f[8] != "Drops" {
				return 0, fmt.Errorf("read /proc/net/netlink: unknown columns %q", line)
			}
			continue
		}
		if len(f) < 9 || f[1] != netfilter || strings.Trim(f[3], "0") == "" {
			continue
		}
		n, err := strconv.Atoi(f[8])
		if err != nil {
			return 0, fmt.Errorf("read /proc/net/netlink: %w", err)
		}
		total += n
	}
	return total, nil
}

// linkBytes is what went over a node's sync interface, both ways, Ethernet and
// IP headers included.
func linkBytes(n *nettest.Node) (total float64, err error) {
	err = n.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err == nil {
			total, err = parseLinkBytes(string(text), nettest.SyncIf)
		}
		return err
	})
	return total, err
}

func parseLinkBytes(text, ifname string) (float64, error) {
	_, rest, ok := strings.Cut(text, ifname+":")
	f := strings.Fields(rest)
	if !ok || len(f) < 9 {
		return 0, fmt.Errorf("read /proc/net/dev: no %s", ifname)
	}
	rx, err := strconv.ParseFloat(f[0], 64)
	if err != nil {
		return 0, fmt.Errorf("read /proc/net/dev: %w", err)
	}
	tx, err := strconv.ParseFloat(f[8], 64)
	if err != nil {
		return 0, fmt.Errorf("read /proc/net/dev: %w", err)
	}
	return rx + tx, nil
}

// number returns the number behind a label.
func number(text, label string) (v float64, err error) {
	_, rest, ok := strings.Cut(text, label)
	if !ok {
		return 0, fmt.Errorf("no %q in the report", label)
	}
	if _, err = fmt.Sscan(rest, &v); err != nil {
		return 0, fmt.Errorf("read %q: %w", label, err)
	}
	return v, nil
}
