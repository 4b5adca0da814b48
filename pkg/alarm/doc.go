// Package alarm decides what one ALARM node sends, and when.
//
// # The protocol in a page
//
// Nothing is acknowledged and nothing is asked for; there are no control
// messages at all. An object is sent when it changes, and again and again as
// long as it lives: each has a timer of its own, from one second up to
// RefreshTime, set by chance so that they do not all go off together, and
// anew whenever the object changes. So what was lost is right again when the
// timer goes off.
//
// The end of an object is told once. If that is lost nothing repeats it, but
// nothing refreshes the object any more either: the receiver drops what it has
// not heard of for CacheTimeout, which must be well above the other's
// RefreshTime.
//
// Messages have numbers which nobody looks at. A message that has any flag is
// ignored, so an FTFW node, whose every message has HELLO until it is
// answered, is never heard.
//
// Facts about the C daemon are in docs/protocol.md 7.1. A replay of a capture
// shows that in C's place the engine sends what C sent.
//
// # Using the engine
//
// As any of package engine, and in addition the owner
//
//   - calls Watch for an internal object that was added or changed, whoever
//     did it, and Unwatch when it ends; DueRefresh names the objects to be
//     sent again;
//   - calls Heard for an external object that a message was about, and Gone
//     when it ends; NextExpired names those that were not heard of for too
//     long.
//
// # Where we differ from C
//
//  1. An object that never changed is refreshed as CT_UPD and not as CT_NEW:
//     the receiver's age of it goes on. (The owner does that.)
//  2. Timers are exact to a fifth of a second, C's spread of them included.
package alarm
