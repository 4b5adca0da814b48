package ctl

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A crowd bounds the clients of a server, without letting those that misbehave
// keep the others out. Connections that have not asked for anything yet cost
// little, so there may be many; if there are too many the oldest of them goes,
// as it had the longest time to ask. Requests cost more, so fewer are answered
// at once, and who does not read his answer makes room for who waits. Nobody
// is dropped whose request is being worked on.
type crowd struct {
	waiting, served chan struct{} // an element for each client
	yield           time.Duration
	dropped         *atomic.Uint64

	mu      sync.Mutex
	clients map[*client]struct{}
}

// client is one connection.
type client struct {
	conn    net.Conn
	arrived time.Time
	writing atomic.Int64 // since when a write waits for the client, ns after arrived; 0: none does

	// Guarded by crowd.mu.
	asked, served, gone bool
}

func newCrowd(cfg *Config) *crowd {
	return &crowd{
		waiting: make(chan struct{}, cfg.MaxWaiting),
		served:  make(chan struct{}, cfg.MaxClients),
		yield:   cfg.YieldTimeout,
		dropped: &cfg.Counters.LocalDropped,
		clients: make(map[*client]struct{}),
	}
}

// lookAgain is how often somebody without room looks for whom to drop.
const lookAgain = 200 * time.Millisecond

// admit takes a new connection in. It reports false when ctx ends first.
func (cr *crowd) admit(ctx context.Context, conn net.Conn) (*client, bool) {
	c := &client{conn: conn, arrived: time.Now()}
	if !cr.enter(ctx, cr.waiting, cr.dropSilent) {
		return nil, false
	}
	cr.mu.Lock()
	cr.clients[c] = struct{}{}
	cr.mu.Unlock()
	return c, true
}

// begin is for a client that has asked: it waits until the request may be
// answered. It reports false when ctx ends first, or the client was dropped.
func (cr *crowd) begin(ctx context.Context, c *client) bool {
	cr.mu.Lock()
	gone := c.gone
	c.asked = true
	cr.mu.Unlock()
	if gone || !cr.enter(ctx, cr.served, cr.dropStalled) {
		return false
	}
	<-cr.waiting
	cr.mu.Lock()
	c.served = true
	cr.mu.Unlock()
	return true
}

// leave ends a client.
func (cr *crowd) leave(c *client) {
	cr.mu.Lock()
	delete(cr.clients, c)
	served := c.served
	cr.mu.Unlock()
	if served {
		<-cr.served
	} else {
		<-cr.waiting
	}
}

// enter waits for room, and drops somebody if there is none.
func (cr *crowd) enter(ctx context.Context, room chan struct{}, drop func()) bool {
	select {
	case room <- struct{}{}:
		return true
	default:
	}
	for {
		drop()
		select {
		case room <- struct{}{}:
			return true
		case <-ctx.Done():
			return false
		case <-time.After(lookAgain):
		}
	}
}

// dropSilent drops the oldest client that has not asked.
func (cr *crowd) dropSilent() {
	cr.drop(func(c *client) time.Duration {
		if c.asked {
			return 0
		}
		return time.Since(c.arrived)
	})
}

// dropStalled drops the client that takes nothing for the longest time.
func (cr *crowd) dropStalled() {
	cr.drop(func(c *client) time.Duration {
		since := c.writing.Load()
		if since == 0 {
			return 0
		}
		stalled := time.Since(c.arrived) - time.Duration(since)
		if stalled < cr.yield {
			return 0
		}
		return stalled
	})
}

// drop closes the connection of the client that has been a burden for the
// longest time, if there is one. Its goroutine makes the room.
func (cr *crowd) drop(burden func(*client) time.Duration) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	var worst *client
	most := time.Duration(0)
	for c := range cr.clients {
		if t := burden(c); !c.gone && t > most {
			worst, most = c, t
		}
	}
	if worst == nil {
		return
	}
	worst.gone = true
	worst.conn.Close()
	cr.dropped.Add(1)
}

// disperse cuts everybody off.
func (cr *crowd) disperse() {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	for c := range cr.clients {
		c.conn.Close()
	}
}
