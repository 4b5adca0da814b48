// Package notrack decides what one NOTRACK node sends.
//
// # The protocol in a page
//
// Every message has a number, one more than the one before, and that is all
// there is to it: nothing is acknowledged, asked for again or kept. An object
// that changes is sent once, as what it is by then; however often it changed
// while it waited, one message goes out. What is lost on the way is lost until
// the object changes again or somebody asks for everything.
//
// RESYNC means: send me everything. It is the only way to be right again after
// a loss, and it has no end mark, so what the sender no longer has stays at
// the receiver. ALIVE says that the node lives; it leaves after a second in
// which nothing else did.
//
// The receiver counts what is missing and what comes late, and takes it all
// the same: a message that comes late overwrites a newer one. ACK and NACK are
// not of this protocol and count as malformed; the HELLO bits that an FTFW
// node puts on its data do not matter.
//
// Facts about the C daemon are in docs/protocol.md 4 and 7.2. A replay of
// captures shows that in C's place the engine sends what C sent, message for
// message.
//
// # Using the engine
//
// As any of package engine: after each input pull NextEvent, Pop and Released
// until there is no more, and call Flushed if Pop gave something. Objects that
// were popped stay the engine's until Released names them, so that a message
// can be made of them.
//
// A node without an internal cache has no objects. It makes its messages
// itself and asks only for Numbers; BulkWanted then means the kernel's table.
//
// # Where we differ from C
//
//  1. Lost messages are counted exactly.
//  2. The node asks for everything when it starts, told to or not.
//  3. Of the bulks that a peer causes by RESYNC, five go at once and then one
//     a second. (How fast a bulk goes is the owner's to decide: nobody
//     acknowledges it.)
//  4. One ALIVE at most waits to be sent, and none beside other messages.
package notrack
