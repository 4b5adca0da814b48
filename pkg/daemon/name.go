package daemon

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// machineID is the file of systemd and D-Bus that names an installation.
const machineID = "/etc/machine-id"

// nameOf names this node and its life (docs/protocol.md 12.1). The name is made
// of what does not change with a restart and is another one on the other node:
// the installation, which may be a copy, and what its links have on the wire,
// which cannot be. No file needs to be kept for it. Where none of the interfaces
// is there yet nothing is known that a copy has not, and the time stands in.
func nameOf(links []link.Config, now time.Time) wire.NodeName {
	h := sha256.New()
	id, _ := os.ReadFile(machineID) // no such file: the links do
	fmt.Fprintf(h, "%q\n", id)
	found := len(links) == 0
	for _, l := range links {
		var hardware net.HardwareAddr
		if i, err := net.InterfaceByName(l.Interface); err == nil {
			hardware, found = i.HardwareAddr, true
		}
		fmt.Fprintf(h, "%v %s %v %v %v %d\n", l.Transport, l.Interface, hardware, l.Local, l.MulticastInterface, l.Port)
	}
	if !found {
		fmt.Fprintf(h, "%d\n", now.UnixNano())
	}
	sum := h.Sum(nil)
	return wire.NodeName{Node: binary.BigEndian.Uint64(sum) | 1, Epoch: uint64(now.UnixNano())}
}
