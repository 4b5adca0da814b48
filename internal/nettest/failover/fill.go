package failover

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// fill writes Options.Entries established connections into the master's
// kernel: from clients in 10.64.0.0/10, all translated.
func (r *Rig) fill() error {
	if r.options.Entries == 0 {
		return nil
	}
	w, err := flood.Open(r.master.Node.Do)
	if err != nil {
		return err
	}
	defer w.Close()
	result, err := w.Create(flood.Load{To: r.options.Entries, Rate: r.options.FillRate, Flow: filler})
	if err == nil {
		err = result.Err()
	}
	if err != nil {
		return fmt.Errorf("fill the table of %s: %w", r.master.Name(), err)
	}
	return nil
}

// established is the kernel's number of the TCP state.
const established = 3

// filler gives every 60,000 entries a port of the server of their own, so that
// all keep their source port when translated to the one address.
func filler(i int, f *flood.Flow) {
	var src [4]byte
	binary.BigEndian.PutUint32(src[:], 10<<24|64<<16|uint32(i)>>8)
	*f = flood.Flow{
		Proto: flood.TCP, Src: netip.AddrFrom4(src), Dst: nettest.Server,
		Sport: uint16(1024 + i%60000), Dport: uint16(10000 + i/60000),
		Timeout: 3600, State: established, Status: flood.SeenReply | flood.Assured | flood.Confirmed,
		SNAT: netip.AddrPortFrom(nettest.WanVIP, 0),
	}
}
