package node

import "github.com/conntrackgo/conntrackgo/pkg/flow"

// What is not restored must not be assumed of the kernel's entry either. The
// writer leaves it alone (kernel.WriterConfig.Leave); here the internal cache
// is kept from saying otherwise where no event follows.

// nothing has no attributes.
var nothing flow.Flow

// unrestored removes from a flow what a new entry will not have.
func (n *Node) unrestored(f *flow.Flow) {
	if has := n.cfg.NotRestored(); has != 0 {
		retain(f, &nothing, has)
	}
}

// own makes a flow, which the internal cache has too, say what the entry keeps.
func (n *Node) own(f *flow.Flow) {
	if has := n.cfg.NotRestored(); has != 0 {
		n.internal.load(n.internal.lookup(&f.Key), &n.scratch)
		retain(f, &n.scratch, has)
	}
}

// retain makes f say of the attributes in has what g says.
func retain(f, g *flow.Flow, has flow.Has) {
	f.Has = f.Has&^has | g.Has&has
	if has.Has(flow.HasMark) {
		f.Mark = g.Mark
	}
	if has.Has(flow.HasLabels) {
		f.Labels = g.Labels
	}
	if has.Has(flow.HasHelper) {
		f.Helper = g.Helper
		f.Status = f.Status&^flow.StatusHelper | g.Status&flow.StatusHelper
	}
}
