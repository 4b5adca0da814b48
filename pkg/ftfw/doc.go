// Package ftfw decides what one FTFW node sends, sends again and acknowledges.
//
// # The protocol in a page
//
// Every message has a number, one more than the one before. The receiver
// acknowledges what arrives in order (ACK, a range) and asks for what is
// missing as soon as it sees a gap (NACK, a range). The sender keeps what it
// sent on the resend queue until acknowledged; asked for, it goes to the end
// of the transmit queue and out again under a new number. The receiver
// remembers no holes: a repetition that is lost is a new gap, and a NACK that
// is lost is a gap on the other side.
//
// What is queued are objects, not messages. An object is in one of the queues
// at most, and what it is by now is rendered when it is sent. So however often
// a flow changes, at most one message about it waits.
//
// A node that starts says HELLO on every message until it hears a HELLO_BACK.
// It means: my numbers begin anew and I know nothing. RESYNC means: send me
// everything. Neither has an end mark; that the answer to a RESYNC is complete
// follows from the order of the queue, since the answer is queued before the
// RESYNC is acknowledged.
//
// Facts about the C daemon are in docs/protocol.md 4 and 5; a transcript in
// testdata holds each of them. A replay of captures shows that in C's place
// the engine sends what C sent, message for message.
//
// # Using the engine
//
// The engine does no I/O and has no clock. The owner
//
//   - calls Enqueue for what changed, Receive for what arrived (Refuse for
//     what it cannot read), Tick at Deadline; keeps the messages that are to
//     be held and receives them again when Held names them;
//   - after each of them pulls what is to be done: NextEvent, Released, Pop,
//     until there is no more, and calls Flushed if Pop gave something;
//   - calls Leave for a peer that it does not want to wait for any longer;
//   - answers BulkWanted by enqueueing everything and calling BulkDone,
//     PeerRestarted by RequestResync, a ResyncComplete that is not clean by
//     another RequestResync some seconds later; after a clean one it drops
//     what was not delivered since the last ResyncStarted.
//
// An owner that does so has, once the link works, an exact copy of the peer's
// objects, whatever was lost, repeated, reordered or restarted before. The
// simulation in this package is the proof.
//
// # Where we differ from C
//
// docs/decisions/0020-ftfw-deviations.md has the reasons.
//
//  1. Lost messages are counted exactly.
//  2. A window of one message does not run below zero, and an ACK alone does
//     not use up a window: its acknowledgement waits for the next message or
//     the timer.
//  3. Malformed messages have no effect but on counters, HELLO or not.
//  4. The first HELLO of a peer's new life queues again what C forgets, and
//     wants a bulk. Runs of HELLOs are watched for gaps, repetitions and
//     hidden restarts.
//  5. Our first message leaves at once, a HELLO is answered at once, and
//     objects wait a while for the answer. What was sent with HELLO, or before
//     it and is not acknowledged, is sent again afterwards. A peer that was
//     there before us gets a bulk.
//  6. Repeated control messages carry fresh HELLO bits.
//  7. ACK and NACK of numbers that were not sent in this life free nothing; the
//     last of a range must have been.
//  8. We know when the answer to our RESYNC is complete, and acknowledge the
//     peer's RESYNC when our answer is queued.
//  9. A peer of which only late messages arrive, in ascending order, is
//     followed after a second, and treated as restarted.
//  10. A peer that asks for what our full resend queue dropped gets a bulk and
//     a HELLO.
//  11. Something missed before the peer took our last HELLO is asked for with
//     RESYNC, because C has thrown it away.
//  12. What acknowledgements have passed by for three seconds is sent again; a
//     RESYNC only if no object came for as long, else after thirty.
//  13. A peer that talks but acknowledges nothing in five seconds is told
//     HELLO again.
//  14. One ALIVE at most waits to be sent.
//  15. Of the bulks that a peer causes by HELLO or RESYNC, five go at once and
//     then one a second.
//  16. A message whose body cannot be read counts only where it is the next.
//  17. A number more than 4096 ahead moves us only when another follows it. We
//     go back to where we were if the peer goes on there, also after a HELLO.
//  18. A message that comes too early waits for those before it before they
//     are asked for, if the owner wants that.
//  19. A peer that is away for long can be left: nothing is kept for it, and
//     when it answers a new hello everything is exchanged.
package ftfw
