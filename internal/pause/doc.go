// Package pause is how the library waits: for a time that the end of a context cuts short, and for
// times that grow with the failures and differ from one client to the next, so that those who lost
// the same server do not return together.
//
//   - pause.go: [Sleep], [Backoff] and [Varied].
//   - pace.go: [Pace], when to send again what is not answered.
package pause
