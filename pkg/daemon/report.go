package daemon

import (
	"fmt"
	"time"
)

// The statistics texts (docs/protocol.md 8). Monitoring scripts read them, so
// every blank and tab counts: they are the C daemon's, and golden in testdata.
// The functions append to dst and know nothing but their arguments.

// CacheStats are the counters of one cache.
type CacheStats struct {
	Objects uint64 // allocated, those waiting for an acknowledgement included
	Active  uint64 // live entries
	Entries uint64 // in the table, dead ones included

	Created, Updated, Destroyed                    uint64
	CreateFailed, UpdateFailed, DestroyFailed      uint64
	NoMemory, NoSpace, UpdateMissed, DestroyMissed uint64
}

// BypassStats count kernel events sent without an internal cache.
type BypassStats struct {
	New, Updated, Destroyed uint64
}

// InjectStats count messages written to the kernel without an external cache.
type InjectStats struct {
	Created, Updated, Destroyed               uint64
	CreateFailed, UpdateFailed, DestroyFailed uint64
}

// TrafficStats sum the counters of destroyed flows.
type TrafficStats struct {
	Bytes, Packets uint64
}

// LinkStats describe one link of the configuration.
type LinkStats struct {
	Kind   string // UDP, multicast, TCP
	Device string
	Status string // RUNNING, NO-CARRIER, DOWN
	Active bool

	// TCP only: somebody is connected to us; we are connected.
	Server, Client bool

	BytesSent, BytesRecv     uint64
	PacketsSent, PacketsRecv uint64
	ErrorsSent, ErrorsRecv   uint64
}

// TrackingStats count what went wrong between the nodes.
type TrackingStats struct {
	Malformed, Lost uint64
}

// NetworkStats count received messages that were refused, by cause.
type NetworkStats struct {
	Malformed, BadVersion, BadHeader, BadPayload, BadType, Truncated, BadSize uint64

	SendMalformed uint64
	Lost, Before  uint64 // messages missing, and older than expected
}

// RuntimeStats are the counters of the process and its kernel sockets.
type RuntimeStats struct {
	Uptime time.Duration

	EventsReceived, EventsFiltered, EventsUnknown, EventsFailed uint64
	DumpUnknown, Overruns, Flushes, Resyncs                     uint64
	BufferSize                                                  uint64 // bytes

	ChildFailed, ChildSegfault, ChildTermsig, SelectFailed, WaitFailed uint64
	LocalReadFailed, LocalUnknownRequest                               uint64
}

// QueueStats describe one queue.
type QueueStats struct {
	Name            string // txqueue, errorq, rsqueue
	Length, Maximum uint64
	NoSpace         uint64
}

// Resend is one element of the resend queue.
type Resend struct {
	Control bool // a control message; otherwise an entry
	Seq     uint32
	Flags   uint8 // of the header, control messages only
}

// Process is one child or background task of the daemon.
type Process struct {
	PID  int
	Type string // any, flush, commit
}

// line is one counter of a report: its label with the tabs that follow, the
// width of the number, and the number.
type line struct {
	label string
	width int
	value uint64
}

func appendLines(dst []byte, lines []line) []byte {
	for _, l := range lines {
		dst = fmt.Appendf(dst, "%s%*d\n", l.label, l.width, l.value)
	}
	return append(dst, '\n')
}

// The widths of numbers.
const (
	narrow = 12
	wide   = 20
)

func appendCache(dst []byte, name string, s *CacheStats) []byte {
	dst = fmt.Appendf(dst, "cache %s:\ncurrent active connections:\t%12d\n", name, s.Active)
	return appendOutcomes(dst, s.Created, s.CreateFailed, s.Updated, s.UpdateFailed, s.Destroyed, s.DestroyFailed)
}

// appendOutcomes appends three lines of a count and the failures beside it.
func appendOutcomes(dst []byte, created, createFailed, updated, updateFailed, destroyed, destroyFailed uint64) []byte {
	const format = "connections created:\t\t%12d\tfailed:\t%12d\n" +
		"connections updated:\t\t%12d\tfailed:\t%12d\n" +
		"connections destroyed:\t\t%12d\tfailed:\t%12d\n\n"
	return fmt.Appendf(dst, format, created, createFailed, updated, updateFailed, destroyed, destroyFailed)
}

func appendBypass(dst []byte, s *BypassStats) []byte {
	return appendLines(append(dst, "internal bypass:\n"...), []line{
		{"connections new:\t\t", narrow, s.New},
		{"connections updated:\t\t", narrow, s.Updated},
		{"connections destroyed:\t\t", narrow, s.Destroyed},
	})
}

func appendInject(dst []byte, s *InjectStats) []byte {
	dst = append(dst, "external inject:\n"...)
	return appendOutcomes(dst, s.Created, s.CreateFailed, s.Updated, s.UpdateFailed, s.Destroyed, s.DestroyFailed)
}

func appendTraffic(dst []byte, s *TrafficStats) []byte {
	return fmt.Appendf(dst, "traffic processed:\n%20d Bytes      %20d Pckts\n\n", s.Bytes, s.Packets)
}

// appendActiveLink is the block of the link in use, within other reports.
func appendActiveLink(dst []byte, s *LinkStats) []byte {
	dst = fmt.Appendf(dst, "%s traffic (active device=%s)", s.Kind, s.Device)
	if s.Kind == "TCP" {
		dst = fmt.Appendf(dst, " server=%s client=%s", connected(s.Server), connected(s.Client))
	}
	return appendLinkCounters(append(dst, ":\n"...), s)
}

func connected(yes bool) string {
	if yes {
		return "connected"
	}
	return "disconnected"
}

// appendLink is one block of the link report.
func appendLink(dst []byte, s *LinkStats) []byte {
	role := "BACKUP"
	if s.Active {
		role = "ACTIVE"
	}
	dst = fmt.Appendf(dst, "%s traffic device=%s status=%s role=%s:\n", s.Kind, s.Device, s.Status, role)
	return appendLinkCounters(dst, s)
}

func appendLinkCounters(dst []byte, s *LinkStats) []byte {
	const format = "%20d Bytes sent %20d Bytes recv\n" +
		"%20d Pckts sent %20d Pckts recv\n" +
		"%20d Error send %20d Error recv\n\n"
	return fmt.Appendf(dst, format, s.BytesSent, s.BytesRecv, s.PacketsSent, s.PacketsRecv, s.ErrorsSent, s.ErrorsRecv)
}

func appendTracking(dst []byte, s *TrackingStats) []byte {
	return fmt.Appendf(dst, "message tracking:\n%20d Malformed msgs %20d Lost msgs\n\n", s.Malformed, s.Lost)
}

func appendNetwork(dst []byte, s *NetworkStats) []byte {
	dst = appendLines(append(dst, "network statistics:\n\trecv:\n"...), []line{
		{"\t\tMalformed messages:\t", wide, s.Malformed},
		{"\t\tWrong protocol version:\t", wide, s.BadVersion},
		{"\t\tMalformed header:\t", wide, s.BadHeader},
		{"\t\tMalformed payload:\t", wide, s.BadPayload},
		{"\t\tBad message type:\t", wide, s.BadType},
		{"\t\tTruncated message:\t", wide, s.Truncated},
		{"\t\tBad message size:\t", wide, s.BadSize},
		{"\tsend:\n\t\tMalformed messages:\t", wide, s.SendMalformed},
	})
	return appendLines(append(dst, "sequence tracking statistics:\n\trecv:\n"...), []line{
		{"\t\tPackets lost:\t\t", wide, s.Lost},
		{"\t\tPackets before:\t\t", wide, s.Before},
	})
}

// appendCacheDetail is one block of the cache report.
func appendCacheDetail(dst []byte, name string, s *CacheStats) []byte {
	const format = "cache:%s\tactive objects:\t\t%12d\n" +
		"\tactive/total entries:\t\t%12d/%12d\n" +
		"\tcreation OK/failed:\t\t%12d/%12d\n" +
		"\t\tno memory available:\t%12d\n" +
		"\t\tno space left in cache:\t%12d\n" +
		"\tupdate OK/failed:\t\t%12d/%12d\n" +
		"\t\tentry not found:\t%12d\n" +
		"\tdeletion created/failed:\t%12d/%12d\n" +
		"\t\tentry not found:\t%12d\n\n"
	return fmt.Appendf(dst, format, name, s.Objects, s.Active, s.Entries,
		s.Created, s.CreateFailed, s.NoMemory, s.NoSpace,
		s.Updated, s.UpdateFailed, s.UpdateMissed,
		s.Destroyed, s.DestroyFailed, s.DestroyMissed)
}

func appendRuntime(dst []byte, s *RuntimeStats) []byte {
	dst = append(dst, "daemon uptime: "...)
	dst = append(appendUptime(dst, s.Uptime), "\n\nnetlink stats:\n"...)
	dst = appendLines(dst, []line{
		{"\tevents received:\t", wide, s.EventsReceived},
		{"\tevents filtered:\t", wide, s.EventsFiltered},
		{"\tevents unknown type:\t\t", narrow, s.EventsUnknown},
		{"\tcatch event failed:\t\t", narrow, s.EventsFailed},
		{"\tdump unknown type:\t\t", narrow, s.DumpUnknown},
		{"\tnetlink overrun:\t\t", narrow, s.Overruns},
		{"\tflush kernel table:\t\t", narrow, s.Flushes},
		{"\tresync with kernel table:\t", narrow, s.Resyncs},
		{"\tcurrent buffer size (in bytes):\t", narrow, s.BufferSize},
	})
	return appendLines(append(dst, "runtime stats:\n"...), []line{
		{"\tchild process failed:\t\t", narrow, s.ChildFailed},
		{"\t\tchild process segfault:\t", narrow, s.ChildSegfault},
		{"\t\tchild process termsig:\t", narrow, s.ChildTermsig},
		{"\tselect failed:\t\t\t", narrow, s.SelectFailed},
		{"\twait failed:\t\t\t", narrow, s.WaitFailed},
		{"\tlocal read failed:\t\t", narrow, s.LocalReadFailed},
		{"\tlocal unknown request:\t\t", narrow, s.LocalUnknownRequest},
	})
}

// appendUptime drops leading units that are zero, but never the minutes.
func appendUptime(dst []byte, up time.Duration) []byte {
	minutes := int(up / time.Minute)
	days, hours, minutes := minutes/(24*60), minutes/60%24, minutes%60
	if days == 1 {
		dst = append(dst, "1 day "...)
	} else if days > 1 {
		dst = fmt.Appendf(dst, "%d days ", days)
	}
	if hours > 0 {
		dst = fmt.Appendf(dst, "%d h ", hours)
	}
	return fmt.Appendf(dst, "%d min", minutes)
}

// appendResendHead begins the resend-queue report, which has no empty line at
// its end; one line per element follows.
func appendResendHead(dst []byte, length int) []byte {
	return fmt.Appendf(dst, "resent queue (len=%d)\n", length)
}

func appendResend(dst []byte, r Resend) []byte {
	if r.Control {
		return fmt.Appendf(dst, "control -> seq:%d flags:%d\n", r.Seq, r.Flags)
	}
	return fmt.Appendf(dst, "object -> seq:%d\n", r.Seq)
}

// appendQueues is the queue report, the newest queue first.
func appendQueues(dst []byte, nodes uint64, queues []QueueStats) []byte {
	dst = fmt.Appendf(dst, "allocated queue nodes:\t\t%12d\n\n", nodes)
	for i := range queues {
		q := &queues[i]
		dst = appendLines(fmt.Appendf(dst, "queue %s:\n", q.Name), []line{
			{"current elements:\t\t", narrow, q.Length},
			{"maximum elements:\t\t", narrow, q.Maximum},
			{"not enough space errors:\t", narrow, q.NoSpace},
		})
	}
	return dst
}

func appendProcess(dst []byte, p Process) []byte {
	return fmt.Appendf(dst, "PID=%d type=%s\n", p.PID, p.Type)
}
