package nettest

import (
	"fmt"
	"net/netip"
	"strings"
)

// Config is what a lab daemon is told. Zero values mean the daemon's default
// unless the field says otherwise. Both kinds of daemon get the same text.
type Config struct {
	Local, Peer netip.Addr // of the UDP link; their family chooses UDP over IPv4 or IPv6
	Interface   string
	Port        int
	Link        string // complete link sections instead of the four fields above

	Mode          string   // FTFW if empty
	StartupResync bool     // ask the peer for everything at start
	PurgeTimeout  int      // seconds
	CommitTimeout int      // seconds
	ModeLines     []string // further lines inside the Mode section

	TCPWindowTracking bool
	ExpectationSync   bool
	ExpectHelpers     []string // the list, instead of on

	HashSize        int // default 32768; 8192 and less hits a bug of the C daemon's commit
	HashLimit       int // default 262144
	Scheduler       string
	IgnoreAddresses []netip.Addr
	FilterLines     []string // further lines inside the Filter section
	GeneralLines    []string // further lines inside the General section
	Extra           string   // text at the end of the file

	// Paths, each chosen by NewDaemon when empty.
	Socket, Lock, LogFile string
}

// DefaultScheduler is refused by the kernel, so the daemon stays SCHED_OTHER
// (the C daemon warns about it; see the package comment).
const DefaultScheduler = "Type FIFO\n\t\tPriority 0"

// Text renders conntrackd.conf.
func (c *Config) Text() string {
	var b strings.Builder
	b.WriteString("Sync {\n")
	c.writeMode(&b)
	c.writeLink(&b)
	expects := onOff(c.ExpectationSync)
	if len(c.ExpectHelpers) > 0 {
		expects = "{\n\t\t\t" + strings.Join(c.ExpectHelpers, "\n\t\t\t") + "\n\t\t}"
	}
	fmt.Fprintf(&b, "\tOptions {\n\t\tTCPWindowTracking %s\n\t\tExpectationSync %s\n\t}\n}\n", onOff(c.TCPWindowTracking), expects)
	c.writeGeneral(&b)
	b.WriteString(c.Extra)
	return b.String()
}

func (c *Config) writeMode(b *strings.Builder) {
	mode := c.Mode
	if mode == "" {
		mode = "FTFW"
	}
	fmt.Fprintf(b, "\tMode %s {\n", mode)
	if c.StartupResync {
		b.WriteString("\t\tStartupResync on\n")
	}
	writeNumber(b, "PurgeTimeout", c.PurgeTimeout)
	writeNumber(b, "CommitTimeout", c.CommitTimeout)
	writeLines(b, "\t\t", c.ModeLines)
	b.WriteString("\t}\n")
}

func (c *Config) writeLink(b *strings.Builder) {
	if c.Link != "" {
		b.WriteString(c.Link + "\n")
		return
	}
	family := "IPv4"
	if c.Local.Is6() {
		family = "IPv6"
	}
	fmt.Fprintf(b, "\tUDP {\n\t\t%s_address %s\n\t\t%s_Destination_Address %s\n\t\tPort %d\n\t\tInterface %s\n",
		family, c.Local, family, c.Peer, c.Port, c.Interface)
	b.WriteString("\t\tSndSocketBuffer 8388608\n\t\tRcvSocketBuffer 8388608\n\t\tChecksum on\n\t}\n")
}

func (c *Config) writeGeneral(b *strings.Builder) {
	scheduler := c.Scheduler
	if scheduler == "" {
		scheduler = DefaultScheduler
	}
	b.WriteString("General {\n\tSystemd no\n")
	fmt.Fprintf(b, "\tHashSize %d\n\tHashLimit %d\n", orDefault(c.HashSize, 32768), orDefault(c.HashLimit, 262144))
	fmt.Fprintf(b, "\tLogFile %s\n\tLockFile %s\n\tUNIX {\n\t\tPath %s\n\t}\n", c.LogFile, c.Lock, c.Socket)
	fmt.Fprintf(b, "\tNetlinkBufferSize 16777216\n\tNetlinkBufferSizeMaxGrowth 67108864\n")
	fmt.Fprintf(b, "\tScheduler {\n\t\t%s\n\t}\n", scheduler)
	writeLines(b, "\t", c.GeneralLines)
	c.writeFilter(b)
	b.WriteString("}\n")
}

func (c *Config) writeFilter(b *strings.Builder) {
	if len(c.IgnoreAddresses)+len(c.FilterLines) == 0 {
		return
	}
	b.WriteString("\tFilter From Userspace {\n")
	if len(c.IgnoreAddresses) > 0 {
		b.WriteString("\t\tAddress Ignore {\n")
		for _, a := range c.IgnoreAddresses {
			family := "IPv4"
			if a.Is6() {
				family = "IPv6"
			}
			fmt.Fprintf(b, "\t\t\t%s_address %s\n", family, a)
		}
		b.WriteString("\t\t}\n")
	}
	writeLines(b, "\t\t", c.FilterLines)
	b.WriteString("\t}\n")
}

func writeLines(b *strings.Builder, indent string, lines []string) {
	for _, l := range lines {
		b.WriteString(indent + l + "\n")
	}
}

func writeNumber(b *strings.Builder, word string, n int) {
	if n != 0 {
		fmt.Fprintf(b, "\t\t%s %d\n", word, n)
	}
}

func onOff(v bool) string {
	if v {
		return "on"
	}
	return "off"
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}
