// Package nettest is a laboratory of network namespaces in which the real
// kernel, the C conntrackd and our own daemon meet. It serves the integration
// tests, the demo and the benchmarks; nothing in it needs package testing.
//
// # How to use it
//
//	lab, err := nettest.New(nettest.Options{})      // sweeps leftovers of dead runs
//	defer lab.Close()                               // always; also runs on SIGINT, SIGTERM, SIGHUP
//	pair, err := lab.NewPair()                      // client, two firewalls, server, sync link
//	a, err := lab.NewDaemon(pair.A, nettest.C, pair.ConfigA())
//	err = a.Start(ctx)                              // returns when "-s" answers
//	out, err := a.Client(ctx, "-i")
//
// A test uses nettest.Get(t) instead of New: it skips when the machine lacks
// something (root, ip, nft, conntrack, conntrackd) and fails instead of
// skipping when CI=true is in the environment.
//
// # Topologies
//
// NewTwoNodes is two namespaces joined by the sync link and nothing else. No
// rule there mentions conntrack, so the kernel tracks no packet by itself and
// the tables hold exactly what a test put into them.
//
// NewPair is the pair of firewalls of a real installation:
//
//	            10.1.0.0/24 fd01::/64          10.2.0.0/24 fd02::/64
//	             .251 +---+ lan     wan +---+ .251
//	client .2 br0 ----| A |-------------|   |---- br0 .2 server
//	   (bridge)       +-+-+ sy0         |   |     (bridge)
//	                    | 192.168.100.0/30, fd00:100::/64
//	             .252 +-+-+             .252
//	              ----| B |--------------------
//	                  +---+
//
// NewSegment is any number of nodes, "a", "b", "c" and on, whose sync
// interfaces meet in a switch, and NewCluster the same with a client and a
// server, where the third firewall is .253: the topologies of a group.
//
// The client's and the server's default routes point at the virtual addresses
// 10.1.0.1, fd01::1 and 10.2.0.1, fd02::1, which nobody holds until MoveVIPs
// (or keepalived) gives them to a firewall. The two bridges live in the client
// and the server, so a firewall's interface can be set down without touching
// the others. That of a segment lives in a node of its own.
//
// # Names, leftovers, processes
//
// A namespace is called PREFIX-PID-N-NODE: PID is the process that made it and
// N counts the labs of that process. New removes the namespaces, and kills
// the processes in them, whose PID no longer exists; it never touches a name
// of a living process. Processes started here get a death signal, so they
// don't outlive a crashed test; Close kills the rest by pid.
//
// Look into a running lab with "ip netns" and "ip netns exec NAME ...".
// KEEP_LAB=1 in the environment keeps the directory with configurations and
// logs (not the namespaces) and prints where it is.
//
// # Conntrack settings
//
// Every node gets nf_conntrack_events=1 (with the kernel's "auto", entries made
// while nobody listens never send events), nf_conntrack_tcp_loose=0,
// accounting and timestamps off. The table limits are one number for the whole
// machine and are not touched. This kernel may have no netem: loss is made
// with nft numgen at the receiver, see Node.Lose.
//
// # Scheduling
//
// The C daemon asks for SCHED_RR 99 by itself, which starves a small machine
// and makes comparisons unfair. The configurations made here ask for
// "Type FIFO, Priority 0", which the kernel refuses with a warning, so both
// daemons run under SCHED_OTHER. Set Config.Scheduler to change that.
package nettest
