// Package engine holds the words in which a node and its sync modes talk, and
// the small parts the modes have in common.
//
// A mode is an engine: it decides what is sent, and what becomes of what
// arrives. It sees no flow, byte, clock or socket: objects are Refs, messages
// are headers, time is an argument. pkg/ftfw, pkg/alarm and pkg/notrack are
// the modes; the node's table of modes chooses one.
package engine
