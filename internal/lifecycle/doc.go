// Package lifecycle says in which order the parts of a client end.
//
// A [Life] has four phases. While it *lives*, calls begin and parts register. It *drains* from the
// moment Close is called: nothing new is received, and the handlers of what was received go on, with
// every call that they make. When they have returned, or the time is up, it is *ending*: what runs
// without an end of its own is closed, no call begins any more, and those that have begun are waited
// for. Then what they left is sent, and it has *ended*: its Context is over, and with it whatever
// hangs on that. A Life whose connection is lost for good ends at once, by End.
//
//   - life.go: [Life].
//   - loop.go: [Loop], a call that hands out one thing after another.
//   - beside.go: [Beside], what runs beside the parts of a client.
//   - queue.go: [Queue], which tells in order of what happens, and needs no end.
package lifecycle
