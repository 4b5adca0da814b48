package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Unavailable is a setting that this kernel does not have.
const Unavailable = -1

// EventsAuto is the value of Settings.Events with which the kernel reports
// only entries that were made while somebody listened.
const EventsAuto = 2

// Settings are the kernel settings that decide what replication can see, in
// the network namespace of the calling thread.
type Settings struct {
	Events     int // nf_conntrack_events: 0 none, 1 all, EventsAuto
	Accounting int // nf_conntrack_acct: 1 fills flow.Flow.Counters
	Timestamps int // nf_conntrack_timestamp: 1 fills Start and Stop
	Loose      int // nf_conntrack_tcp_loose: 0 refuses connections picked up in the middle
	Liberal    int // nf_conntrack_tcp_be_liberal: 1 ignores the TCP window
	Max        int // nf_conntrack_max, entries; one number for the machine
	Buckets    int // nf_conntrack_buckets; one number for the machine
}

// ReadSettings reads the sysctls net.netfilter.*.
func ReadSettings() (Settings, error) {
	var s Settings
	for _, row := range []struct {
		name string
		to   *int
	}{
		{"nf_conntrack_events", &s.Events},
		{"nf_conntrack_acct", &s.Accounting},
		{"nf_conntrack_timestamp", &s.Timestamps},
		{"nf_conntrack_tcp_loose", &s.Loose},
		{"nf_conntrack_tcp_be_liberal", &s.Liberal},
		{"nf_conntrack_max", &s.Max},
		{"nf_conntrack_buckets", &s.Buckets},
	} {
		v, err := readSysctl(row.name)
		if err != nil {
			return Settings{}, err
		}
		*row.to = v
	}
	return s, nil
}

// Room returns how many entries the table of this network namespace has, and
// how many it may have.
func Room() (used, most int, err error) {
	if used, err = readSysctl("nf_conntrack_count"); err == nil {
		most, err = readSysctl("nf_conntrack_max")
	}
	return used, most, err
}

func readSysctl(name string) (int, error) {
	text, err := os.ReadFile("/proc/sys/net/netfilter/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return Unavailable, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read setting: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read setting %s: %w", name, err)
	}
	return v, nil
}
