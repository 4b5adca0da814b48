package kernel

import "github.com/conntrackgo/conntrackgo/pkg/flow"

// verifyLabels finds out whether the kernel took the labels of what it has
// created: where no rule uses labels it drops them without a word. One entry
// tells of all.
func (w *Writer) verifyLabels(flows []flow.Flow, results []Result) {
	sample := -1
	for i := range flows {
		if madeWithLabels(&flows[i], results[i]) {
			sample = i
			break
		}
	}
	if sample < 0 {
		return
	}
	w.found.Key = flows[sample].Key
	found, err := w.Lookup(&w.found)
	if err != nil || !found || w.found.Has.Has(flow.HasLabels) {
		return // it has ended, or all is well
	}
	for i := range flows {
		if madeWithLabels(&flows[i], results[i]) {
			results[i].Without |= flow.HasLabels
		}
	}
}

func madeWithLabels(f *flow.Flow, r Result) bool {
	made := r.Outcome == Created || r.Outcome == Replaced
	return made && f.Has.Has(flow.HasLabels) && f.Labels != [4]uint32{} && !r.Without.Has(flow.HasLabels)
}
