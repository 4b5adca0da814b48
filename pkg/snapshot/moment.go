package snapshot

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Moment is a point in time by two clocks.
type Moment struct {
	Boot  [16]byte      // the life of the kernel that Since counts in
	Since time.Duration // since the boot, suspension included
	Wall  time.Duration // since 1970
}

const bootID = "/proc/sys/kernel/random/boot_id"

// Now reads the clocks.
func Now() (m Moment, err error) {
	text, err := os.ReadFile(bootID)
	if err != nil {
		return m, fmt.Errorf("read boot id: %w", err)
	}
	digits := strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "")
	if n, err := hex.Decode(m.Boot[:], []byte(digits[:min(len(digits), 2*len(m.Boot))])); err != nil || n != len(m.Boot) {
		return m, fmt.Errorf("read boot id: %q is none", text)
	}
	for clock, at := range map[int32]*time.Duration{unix.CLOCK_BOOTTIME: &m.Since, unix.CLOCK_REALTIME: &m.Wall} {
		var ts unix.Timespec
		if err := unix.ClockGettime(clock, &ts); err != nil {
			return m, fmt.Errorf("read clock: %w", err)
		}
		*at = time.Duration(ts.Nano())
	}
	return m, nil
}

// clocksApart is how far the two clocks may disagree about an age: the UNIX
// clock is adjusted all the time.
const clocksApart = 10 * time.Second

// Age returns how much time has passed since a header was made, or why it is of
// no use at now: of another identity, another boot, too old, or of unknown age
// since a clock was set. A machine that was stopped by its hypervisor has
// a clock since the boot that knows nothing of it, so the other is asked too.
func (c *Config) Age(h *Header, identity string, now Moment) (time.Duration, error) {
	if h.Identity != identity {
		return 0, fmt.Errorf("it is another node's: %q, and we are %q", h.Identity, identity)
	}
	if h.Boot != now.Boot {
		return 0, fmt.Errorf("it was written before the system was booted")
	}
	age, wall := now.Since-h.Since, now.Wall-h.Wall
	switch {
	case age < 0:
		return 0, fmt.Errorf("it is from the future, by %v", -age)
	case age > c.MaxAge:
		return 0, fmt.Errorf("it is %v old, more than %v", age.Round(time.Second), c.MaxAge)
	case wall-age > clocksApart, age-wall > clocksApart:
		return 0, fmt.Errorf("its age is not known: the clock was set by %v since", (wall - age).Round(time.Second))
	}
	return age, nil
}
