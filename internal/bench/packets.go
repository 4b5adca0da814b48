package main

import (
	"context"
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

const (
	udpRate    = 4000 // flows a second
	tcpRate    = 1000 // connections a second
	packetTime = 4 * time.Second
)

// firewallRules track and translate what goes from the LAN to the WAN. The
// link of the daemons is not tracked.
const firewallRules = `
table inet fw {
	chain raw_in {
		type filter hook prerouting priority raw; policy accept;
		iifname "sy0" notrack
	}
	chain raw_out {
		type filter hook output priority raw; policy accept;
		oifname "sy0" notrack
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "lan" ct state new accept
	}
	chain srcnat {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" ip saddr 10.1.0.0/24 snat ip to 10.2.0.1
	}
}`

// Timeouts short enough that flows end during the measurement.
var shortTimeouts = []string{
	"net.netfilter.nf_conntrack_udp_timeout=1",
	"net.netfilter.nf_conntrack_udp_timeout_stream=1",
	"net.netfilter.nf_conntrack_tcp_timeout_time_wait=1",
}

// packetScenario sends real packets through the first node. Their events
// differ from those of requests: a TCP connection makes six, at the pace of
// its packets.
func packetScenario() scenario {
	return scenario{name: "real packets", rows: []string{"packets-udp", "packets-tcp"}, quick: true, run: func(ctx context.Context, t *trial) error {
		p, err := newPair(t.kind, setup{place: sender, firewall: true, big: true})
		if err != nil {
			return err
		}
		defer p.close()
		if err := p.fw.A.NFT(firewallRules); err != nil {
			return err
		}
		if err := p.fw.A.Sysctls(shortTimeouts); err != nil {
			return err
		}
		if err := p.fw.MoveVIPs(p.fw.A); err != nil {
			return err
		}
		if err := p.startBoth(ctx); err != nil {
			return err
		}
		for _, x := range []struct {
			id   string
			rate int
			send func(*flood.Packets) error
		}{
			{"packets-udp", udpRate, sendUDP},
			{"packets-tcp", tcpRate, sendTCP},
		} {
			if !t.wants(x.id) {
				continue
			}
			load := flood.Packets{
				Client: p.fw.Client.Do, Server: p.fw.Server.Do, At: nettest.Server, Port: 10_000,
				Rate: x.rate, Flows: x.rate * int(packetTime/time.Second),
			}
			if err := p.packets(ctx, t, x.id, func() error { return x.send(&load) }); err != nil {
				return err
			}
		}
		return nil
	}}
}

func sendUDP(l *flood.Packets) error {
	_, answered, err := l.UDP()
	if err == nil && answered < l.Flows*99/100 {
		err = fmt.Errorf("%d of %d UDP flows were answered", answered, l.Flows)
	}
	return err
}

func sendTCP(l *flood.Packets) error {
	_, err := l.TCP()
	return err
}

func (p *pair) packets(ctx context.Context, t *trial, id string, send func() error) error {
	received := func() (float64, error) {
		text, err := ask(ctx, p.a, askRuntime)
		if err != nil {
			return 0, err
		}
		return number(text, "events received:")
	}
	events, err := received()
	if err != nil {
		return err
	}
	before, err := p.cpuTimes()
	if err != nil {
		return err
	}
	if err := send(); err != nil {
		return err
	}
	// What the kernel has not ended by itself yet.
	if err := p.nodes.A.FlushKernel(); err != nil {
		return err
	}
	if err := p.settle(ctx); err != nil {
		return err
	}
	after, err := p.cpuTimes()
	if err != nil {
		return err
	}
	now, err := received()
	if err != nil {
		return err
	}
	t.add(id, perMillion(after[0]-before[0], int(now-events)))
	t.step(p.inStep(ctx, stepTime, -1), id)
	return nil
}
