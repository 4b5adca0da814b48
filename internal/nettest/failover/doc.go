// Package failover is a pair of firewalls as people run it: keepalived with
// virtual IPv4 and IPv6 addresses on both sides, primary-backup.sh called at
// each change of state, a default-drop ruleset with SNAT and DNAT, and
// connections that count every millisecond without an answer. The tests here
// and the demo use it; see package nettest for the laboratory beneath.
//
//	rig, err := failover.New(lab, failover.Options{...})
//	err = rig.Start(ctx)                      // first firewall is master
//	err = rig.Connect(ctx)                    // open the connections
//	result, err := rig.Failover(ctx, cause)   // break the master
//	err = rig.Recover(ctx)                    // repair it; it is the backup now
//
// # What is real and what is not
//
// The kernel, keepalived, the daemons, their configuration and the script are
// those of an installation. The stock script runs unchanged: in a mount
// namespace /usr/sbin/conntrackd, /etc/conntrackd/conntrackd.conf and
// /var/lock are the node's own. The daemons are started by the script, as
// after a boot. The one addition is a wrapper around the script that writes
// down when it ran and its exit code, so that nobody has to guess when it is
// done.
//
// # What a stall is
//
// A busy flow asks again as soon as it has its answer and a short pause has
// passed. Its stall in a failover is the longest time between two answers,
// from the moment the master breaks until the new master has finished its
// script and the flow has had an answer after that.
package failover
