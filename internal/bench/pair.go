package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// A pair is two daemons of a kind and a load generator on the first.
type pair struct {
	lab  *nettest.Lab
	a, b *nettest.Daemon
	load *flood.Writer
}

// limit is HashLimit: above any load of ours.
const limit = 4_000_000

func newPair(k nettest.Kind) (p *pair, err error) {
	lab, err := nettest.New(nettest.Options{Prefix: "bench"})
	if err != nil {
		return nil, err
	}
	p = &pair{lab: lab}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	nodes, err := lab.NewTwoNodes()
	if err != nil {
		return nil, err
	}
	ca, cb := nettest.SyncConfigs(false)
	for _, c := range []*nettest.Config{&ca, &cb} {
		c.HashSize, c.HashLimit = 131072, limit
		c.GeneralLines = []string{"NetlinkBufferSize 8388608", "NetlinkBufferSizeMaxGrowth 8388608"}
		c.IgnoreAddresses = []netip.Addr{nettest.SyncA, nettest.SyncB}
	}
	if p.a, err = lab.NewDaemon(nodes.A, k, ca); err != nil {
		return nil, err
	}
	if p.b, err = lab.NewDaemon(nodes.B, k, cb); err != nil {
		return nil, err
	}
	p.load, err = flood.Open(nodes.A.Do)
	return p, err
}

func (p *pair) close() error {
	var err error
	if p.load != nil {
		err = p.load.Close()
	}
	return errors.Join(err, p.lab.Close())
}

// flows fills flow i: established TCP over IPv4, every other one translated.
func flows(i int, f *flood.Flow) {
	high := [4]byte{10, byte(i >> 24), byte(i >> 16), byte(i >> 8)}
	*f = flood.Flow{
		Proto: 6, Src: netip.AddrFrom4(high), Dst: netip.AddrFrom4([4]byte{192, 0, 2, 1}),
		Sport: uint16(i&0xff) + 1024, Dport: 80, Timeout: 3000, State: 3,
		Status: flood.SeenReply | flood.Assured | flood.Confirmed,
	}
	if i%2 == 1 {
		high[0] = 100
		f.SNAT = netip.AddrPortFrom(netip.AddrFrom4(high), 0)
	}
}

// inStep waits until the second daemon's external cache has want entries and
// the first has nothing more to send.
func (p *pair) inStep(ctx context.Context, want int) error {
	return nettest.Eventually(ctx, 10*time.Second, fmt.Sprintf("%d external entries", want), func() error {
		queue, err := p.a.Client(ctx, "-s", "queue")
		if err != nil {
			return err
		}
		if n, err := number(queue, "current elements:"); err != nil || n > 0 {
			return errors.Join(err, fmt.Errorf("%v still to be sent", n))
		}
		cache, err := p.b.Client(ctx, "-s")
		if err != nil {
			return err
		}
		_, external, _ := strings.Cut(cache, "cache external:")
		if n, err := number(external, "active connections:"); err != nil || int(n) != want {
			return errors.Join(err, fmt.Errorf("%v external entries", n))
		}
		return nil
	})
}

// number returns the number behind a label.
func number(text, label string) (v float64, err error) {
	_, rest, ok := strings.Cut(text, label)
	if !ok {
		return 0, fmt.Errorf("no %q in the report", label)
	}
	_, err = fmt.Sscan(rest, &v)
	return v, err
}

// ticks is USER_HZ, the unit of /proc/PID/stat on Linux.
const ticks = 100

// cpu returns the CPU seconds a daemon has used.
func cpu(d *nettest.Daemon) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.Proc().PID()))
	if err != nil {
		return 0, err
	}
	// The command's name, in parentheses, may hold anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var user, system float64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return (user + system) / ticks, nil
}

// rss returns a daemon's resident memory in MB.
func rss(d *nettest.Daemon) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Proc().PID()))
	if err != nil {
		return 0, err
	}
	kb, err := number(string(b), "VmRSS:")
	return kb / 1024, err
}
