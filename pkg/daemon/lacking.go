package daemon

import (
	"fmt"
	"sync/atomic"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// lackRows are the attributes that a kernel may not take, and what to do.
var lackRows = [...]struct {
	has  flow.Has
	text string
}{
	{flow.HasLabels, "labels, as no rule here uses any; a rule with `ct label set` makes the kernel keep them"},
	{flow.HasHelper, "helper, which this kernel does not know; load its module"},
	{flow.HasMaster, "master, which is not in the table"},
}

// lacking counts the entries that the kernel took without an attribute.
type lacking [len(lackRows)]atomic.Uint64

func (l *lacking) add(without flow.Has) {
	if without == 0 {
		return
	}
	for i := range lackRows {
		if without.Has(lackRows[i].has) {
			l[i].Add(1)
		}
	}
}

// text says that n entries were written without attribute i.
func (l *lacking) text(i int, n uint64, written string) string {
	return fmt.Sprintf("%d entries were %s without their %s", n, written, lackRows[i].text)
}
