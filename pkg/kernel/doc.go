// Package kernel is the only package that speaks netlink. It reads what the
// kernel's connection tracking says (Events, Dumper), decodes it into the
// words of package flow, and writes flows and expectations back (Writer).
//
// The codec of the hot path is written by hand: one table of attributes for
// reading and one for writing, no allocation per message. Every socket lives
// in the network namespace of the thread that opened it.
package kernel
