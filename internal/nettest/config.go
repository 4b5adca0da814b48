package nettest

import (
	"fmt"
	"net/netip"
	"strings"
)

// Config is what a lab daemon is told. Zero values mean the daemon's default
// unless the field says otherwise. Both kinds of daemon get the same text.
type Config struct {
	Transport   string     // of the link: UDP (if empty), Multicast or TCP
	Local, Peer netip.Addr // of the link; their family chooses IPv4 or IPv6. A group is of that family
	Interface   string
	Port        int
	Link        string // complete link sections instead of the fields above

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
	Ours            []string // lines of the Conntrackgo section, which a C daemon refuses
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
	if len(c.Ours) > 0 {
		b.WriteString("Conntrackgo {\n")
		writeLines(&b, "\t", c.Ours)
		b.WriteString("}\n")
	}
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
	b.WriteString(LinkSection(c.Transport, c.Interface, c.Local, c.Peer, c.Port, false))
}

// The groups of Multicast links.
var (
	Group  = netip.MustParseAddr("225.0.0.50")
	Group6 = netip.MustParseAddr("ff02::50")
)

// LinkSection renders one link; see Config for the arguments.
func LinkSection(transport, device string, local, peer netip.Addr, port int, isDefault bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\t%s %s{\n", orDefault(transport, "UDP"), map[bool]string{true: "Default "}[isDefault])
	family := family(local)
	switch {
	case transport != "Multicast":
		fmt.Fprintf(&b, "\t\t%s_address %s\n\t\t%s_Destination_Address %s\n\t\tPort %d\n", family, local, family, peer, port)
	case local.Is6():
		fmt.Fprintf(&b, "\t\tIPv6_address %s\n\t\tGroup %d\n", Group6, port)
	default:
		fmt.Fprintf(&b, "\t\tIPv4_address %s\n\t\tGroup %d\n\t\tIPv4_interface %s\n", Group, port, local)
	}
	// After the address: the C daemon needs that order in a Multicast link.
	fmt.Fprintf(&b, "\t\tInterface %s\n", device)
	b.WriteString("\t\tSndSocketBuffer 8388608\n\t\tRcvSocketBuffer 8388608\n\t\tChecksum on\n\t}\n")
	return b.String()
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
			fmt.Fprintf(b, "\t\t\t%s_address %s\n", family(a), a)
		}
		b.WriteString("\t\t}\n")
	}
	writeLines(b, "\t\t", c.FilterLines)
	b.WriteString("\t}\n")
}

// family is the word for an address's IP version.
func family(a netip.Addr) string {
	if a.Is6() {
		return "IPv6"
	}
	return "IPv4"
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

func orDefault[T comparable](n, def T) T {
	var zero T
	if n == zero {
		return def
	}
	return n
}
