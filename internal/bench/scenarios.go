package main

import "github.com/conntrackgo/conntrackgo/internal/nettest"

// The plots: CPU per event over the rate, and costs per entry over the size.
const (
	curveRate     = "rate"
	curveInternal = "internal"
	curveExternal = "external"
	curveUpdate   = "update"
	curveDump     = "dump"
	curveCommit   = "commit"
)

// scenarios are all that is measured, in this order.
func scenarios() []scenario {
	list := []scenario{
		senderScenario(),
		receiverScenario("receiver-external"),
		receiverScenario("receiver-inject", injection),
		latencyScenario("datagram", sendAtOnce),
		latencyScenario("visible", sendAtOnce, injection),
		coalescedScenario(),
		largeScenario(100_000),
		largeScenario(500_000),
		startScenario(1_000_000),
		memory6Scenario(),
		overrunScenario(),
		failoverScenario(100_000),
		failoverScenario(500_000),
		holdScenario(100_000),
		holdScenario(500_000),
		packetScenario(),
	}
	for _, n := range sizes {
		list = append(list, growthScenario(n))
	}
	return list
}

var oursOnly = []nettest.Kind{nettest.Go}
