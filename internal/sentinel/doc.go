// Package sentinel finds out soon that a server has died without a word, although its consumers are beaten for
// rarely.
//
// Those who pull from consumers that one server leads have a [Part] each in the watch over it. One of them is the
// sentinel, whose pulls have quick heartbeats. Whatever a part hears is a sign of all. When the whole server is silent,
// the parts are alarmed, each asks for a sign of its own, and the first that gets one is the sentinel from then on: so
// it does not matter that the one before is busy, or does not read.
//
//   - sentinel.go: [Nodes] and [Part].
package sentinel
