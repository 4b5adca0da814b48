package nettest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
)

// RawEntry holds what the text formats don't show, decoded by
// ti-mo/conntrack, which shares no code with ours.
type RawEntry struct {
	Status     uint32
	TCPFlags   [2]uint8 // original, reply
	WScale     [2]uint8
	SCTPVtag   [2]uint32
	Labels     string // bytes of CTA_LABELS
	SeqAdj     [2]conntrack.SequenceAdjust
	Synproxy   conntrack.SynProxy
	Master     string // original tuple of the master
	HelperName string
}

// Kernel reads the node's connection-tracking table: "conntrack -L -o
// extended,id" for what people see, and a netlink dump for the rest. The two
// are taken one after the other, so the table should be quiet; an entry that
// only one of them has keeps Raw nil or is left out.
func (n *Node) Kernel() (Table, error) {
	text, err := n.Run("conntrack", "-L", "-o", "extended,id")
	if err != nil {
		return nil, err
	}
	t, err := ParseTable(text)
	if err != nil {
		return nil, err
	}
	flows, err := n.kernelDump()
	if err != nil {
		return nil, err
	}
	for i := range flows {
		if e := t[flowKey(&flows[i])]; e != nil {
			e.Raw = rawEntry(&flows[i])
		}
	}
	return t, nil
}

// RawKernel is Kernel by the netlink dump alone, for those who look often: each
// dump walks the hash table of the whole machine. States are numbers, and what
// RawEntry and the other fields of Entry both have is in RawEntry only.
func (n *Node) RawKernel() (Table, error) {
	flows, err := n.kernelDump()
	if err != nil {
		return nil, err
	}
	t := Table{}
	for i := range flows {
		f := &flows[i]
		e := &Entry{Key: flowKey(f), Reply: flowTuple(&f.TupleReply), HasReply: true, Timeout: int(f.Timeout), Mark: f.Mark, Raw: rawEntry(f)}
		switch p := &f.ProtoInfo; {
		case p.TCP != nil:
			e.State = fmt.Sprint(p.TCP.State)
		case p.SCTP != nil:
			e.State = fmt.Sprint(p.SCTP.State)
		case p.DCCP != nil:
			e.State = fmt.Sprint(p.DCCP.State)
		}
		t[e.Key] = e
	}
	return t, nil
}

func (n *Node) kernelDump() ([]conntrack.Flow, error) {
	c, err := conntrack.Dial(&netlink.Config{NetNS: n.FD()})
	if err != nil {
		return nil, fmt.Errorf("dump kernel table of %s: %w", n.Name, err)
	}
	defer func() { _ = c.Close() }()
	flows, err := c.Dump(nil)
	if err != nil {
		return nil, fmt.Errorf("dump kernel table of %s: %w", n.Name, err)
	}
	return flows, nil
}

// Expectations reads the node's expectations, of each what two kernels must
// agree about: all but timeout and ID.
func (n *Node) Expectations() ([]string, error) {
	c, err := conntrack.Dial(&netlink.Config{NetNS: n.FD()})
	if err != nil {
		return nil, fmt.Errorf("dump expectations of %s: %w", n.Name, err)
	}
	defer func() { _ = c.Close() }()
	all, err := c.DumpExpect()
	if err != nil {
		return nil, fmt.Errorf("dump expectations of %s: %w", n.Name, err)
	}
	texts := make([]string, len(all))
	for i, x := range all {
		texts[i] = fmt.Sprintf("%v mask %v master %v helper %q class %d flags %d NAT %v direction %v function %q",
			x.Tuple, x.Mask, x.TupleMaster, x.HelpName, x.Class, x.Flags, x.NAT.Tuple, x.NAT.Direction, x.Function)
	}
	slices.Sort(texts)
	return texts, nil
}

// Count is the number of entries in the kernel's table.
func (n *Node) Count() (int, error) {
	flows, err := n.kernelDump()
	return len(flows), err
}

// Held is the kernel's own count of the node's entries, which costs nothing to
// read. One that has just ended may still count.
func (n *Node) Held() (count int, err error) {
	err = n.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil {
			count, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err
	})
	return count, err
}

// FlushKernel empties the kernel's table.
func (n *Node) FlushKernel() error {
	_, err := n.Run("conntrack", "-F")
	return err
}

func flowKey(f *conntrack.Flow) Key {
	return Key{Proto: f.TupleOrig.Proto.Protocol, Tuple: flowTuple(&f.TupleOrig), Zone: f.Zone}
}

func flowTuple(t *conntrack.Tuple) Tuple {
	u := Tuple{Src: t.IP.SourceAddress, Dst: t.IP.DestinationAddress}
	if t.Proto.Protocol == 1 || t.Proto.Protocol == 58 {
		u.Type, u.Code, u.ID = t.Proto.ICMPType, t.Proto.ICMPCode, t.Proto.ICMPID
		return u
	}
	u.Sport, u.Dport = t.Proto.SourcePort, t.Proto.DestinationPort
	return u
}

func rawEntry(f *conntrack.Flow) *RawEntry {
	r := &RawEntry{
		Status:     uint32(f.Status),
		Labels:     string(f.Labels),
		SeqAdj:     [2]conntrack.SequenceAdjust{f.SeqAdjOrig, f.SeqAdjReply},
		Synproxy:   f.SynProxy,
		HelperName: f.Helper.Name,
	}
	if f.TupleMaster.IP.SourceAddress.IsValid() {
		r.Master = f.TupleMaster.String()
	}
	if p := f.ProtoInfo.TCP; p != nil {
		r.TCPFlags = [2]uint8{uint8(p.OriginalFlags), uint8(p.ReplyFlags)}
		r.WScale = [2]uint8{p.OriginalWindowScale, p.ReplyWindowScale}
	}
	if p := f.ProtoInfo.SCTP; p != nil {
		r.SCTPVtag = [2]uint32{p.VTagOriginal, p.VTagReply}
	}
	return r
}
