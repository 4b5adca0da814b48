package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// A placement says which daemon has the last CPU to itself; the other daemon,
// the load and the bench share the rest. With nobody alone everything may run
// everywhere, as on a machine nobody tuned: so are the rows measured that
// take wall time of control requests, in which children, clients and threads
// work at once.
type placement int

const (
	nobody   placement = iota
	sender             // the first node's daemon
	receiver           // the second's
)

func (p placement) String() string {
	return [...]string{"all share all CPUs", "sender alone on a CPU", "receiver alone on a CPU"}[p]
}

// cpus are those this process could use when it began.
var cpus = func() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return []int{0}
	}
	return list(&set)
}()

func list(set *unix.CPUSet) (all []int) {
	for i := range 1024 {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	return all
}

func setOf(list []int) *unix.CPUSet {
	var s unix.CPUSet
	for _, c := range list {
		s.Set(c)
	}
	return &s
}

// alone is the subject's CPU, rest are the others'.
func alone() []int { return cpus[len(cpus)-1:] }

func rest() []int {
	if len(cpus) == 1 {
		return cpus
	}
	return cpus[:len(cpus)-1]
}

// pin lets every thread of a process run on these CPUs only.
func pin(pid int, to []int) error {
	return eachThread(pid, func(tid int) error { return unix.SchedSetaffinity(tid, setOf(to)) })
}

// nice is that of the daemons and of the bench: on a machine that others use
// too, a negative one leaves less to chance.
var nice int

func renice(pid, to int) error {
	if to == 0 {
		return nil
	}
	return eachThread(pid, func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, to) })
}

// eachThread does something to every thread of a process. A thread made
// meanwhile by one not reached yet is found by the second look.
func eachThread(pid int, f func(tid int) error) error {
	for range 2 {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return fmt.Errorf("place process %d: %w", pid, err)
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return fmt.Errorf("place process %d: %w", pid, err)
			}
			if err := f(tid); err != nil && err != unix.ESRCH {
				return fmt.Errorf("place process %d: %w", pid, err)
			}
		}
	}
	return nil
}

// pinBench places the bench itself, and so what it will start.
func pinBench(p placement) error {
	if p == nobody {
		return pin(os.Getpid(), cpus)
	}
	return pin(os.Getpid(), rest())
}

// steer lets the packets that arrive at a node be worked on by the CPUs of its
// daemon. Two machines joined by a cable do so by nature; over a veth the
// sender would do, and pay for, the receiver's half.
func steer(n *nettest.Node, to []int) error {
	mask := 0
	for _, c := range to {
		mask |= 1 << c
	}
	_, err := n.Run("ip", "netns", "exec", n.NetNS, "sh", "-c",
		fmt.Sprintf("echo %x >/sys/class/net/%s/queues/rx-0/rps_cpus", mask, nettest.SyncIf))
	return err
}

// A machine describes where the bench ran, without its name.
type machine struct {
	CPUs     int
	Rest     int // of them, when a daemon is alone on one
	Model    string
	MemoryGB int
	Kernel   string
	Go       string
	C        string
}

func describeMachine() machine {
	m := machine{CPUs: len(cpus), Rest: len(rest()), Go: runtime.Version(), Model: "unknown CPU"}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(b), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			m.Model = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		if kb, err := number(string(b), "MemTotal:"); err == nil {
			m.MemoryGB = int(kb/1024/1024 + 0.5)
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		// What a builder added behind the version says nothing.
		m.Kernel, _, _ = strings.Cut(strings.TrimSpace(string(b)), "-")
	}
	m.C = programVersion(nettest.CBinary())
	return m
}

// programVersion finds "v1.4.7" in what -v prints.
func programVersion(binary string) string {
	out, err := exec.Command(binary, "-v").Output()
	if err == nil {
		for _, word := range strings.Fields(string(out)) {
			if v, ok := strings.CutPrefix(strings.TrimRight(word, "."), "v"); ok && v != "" && v[0] >= '0' && v[0] <= '9' {
				return v
			}
		}
	}
	return "of unknown version"
}
