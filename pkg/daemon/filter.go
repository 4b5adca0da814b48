package daemon

import (
	"github.com/conntrackgo/conntrackgo/pkg/confparse"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
)

// filtering reports whether the Filter section has any effect.
func filtering(f *flow.Filter) bool {
	return f.Protocols != flow.Unset || f.Addresses != flow.Unset || f.States != flow.Unset
}

// eventConfig is how to open the event socket: with the filter on it if that
// is to be From Kernelspace. The node filters what comes all the same, so only
// the work differs, not the verdicts.
func eventConfig(cfg *confparse.Config) kernel.Config {
	k := cfg.Kernel
	if k.KernelFilter && filtering(&cfg.Node.Filter) {
		k.Filter = &cfg.Node.Filter
	}
	return k
}

// sayEvents logs how events come.
func (d *Daemon) sayEvents(events *kernel.Events) {
	if d.polling() {
		d.log.Info("running in polling mode")
	} else if d.cfg.Kernel.Reliable {
		d.log.Info("reliable ctnetlink event delivery is ENABLED.")
	}
	if !filtering(&d.cfg.Node.Filter) {
		return
	}
	if !d.cfg.Kernel.KernelFilter {
		d.log.Info("using user-space event filtering")
		return
	}
	d.log.Info("using kernel-space event filtering")
	if err := events.FilterProblem(); err != nil {
		d.log.Warnf("the event filter is not wholly in the kernel: %v; the rest is filtered in user space, with the same verdicts", err)
	}
}
