package itest_test

import (
	"net/netip"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// loadFlow is flow i of a load: TCP and UDP, IPv4 and IPv6, and every eighth
// translated. Its mark is the given one plus i.
func loadFlow(i int, mark uint32) flood.Flow {
	f := flood.Flow{Proto: flood.UDP, Sport: uint16(i), Dport: uint16(1000 + i>>16), Timeout: 1000, Mark: mark + uint32(i), Status: seen}
	fam := families[i/2%2]
	f.Src, f.Dst = fam.src, fam.dst
	if i%2 == 0 {
		f.Proto, f.State, f.Status = flood.TCP, 3, open
	}
	if i%8 == 0 {
		f.SNAT = netip.AddrPortFrom(fam.snat, f.Sport)
	}
	return f
}

// load is flows [from, to) that keep accepts, at a rate.
func load(from, to, rate int, mark uint32, keep func(i int) bool) flood.Load {
	var picked []int
	for i := from; i < to; i++ {
		if keep == nil || keep(i) {
			picked = append(picked, i)
		}
	}
	return flood.Load{To: len(picked), Rate: rate, Flow: func(i int, f *flood.Flow) { *f = loadFlow(picked[i], mark) }}
}

// must runs one kind of request of a writer.
func (r *rig) must(run func(flood.Load) (flood.Result, error), l flood.Load) {
	r.Helper()
	_, err := run(l)
	r.ok(err)
}

// inBackground runs f and returns a function that waits for its error.
func inBackground(f func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return func() error { return <-done }
}

// key is the table key of a flow.
func key(f flood.Flow) nettest.Key {
	return nettest.Key{Proto: f.Proto, Zone: f.Zone, Tuple: nettest.Tuple{Src: f.Src, Dst: f.Dst, Sport: f.Sport, Dport: f.Dport}}
}
