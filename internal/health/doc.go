// Package health looks at a client for those who ask how it is: a [Report] of all that can be found out in a call's time,
// and probes over HTTP.
//
// A lookout asks the server for a sign of life on behalf of all who want to know: at most one question is
// under way, and at most one is begun a second, however many probes there are. It has a goroutine while it
// asks, and none otherwise. A probe waits for the answer no longer than a moment; what it is told then is
// since when the server is silent, and how long that may be is the probe's to say.
//
//   - checkup.go: [Checkup] of a client, and its [Report].
//   - probe.go: [Checkup.Handler], and what makes a probe fail.
//   - lookout.go: one look for all.
//   - answer.go: an answer and its details on the wire.
//   - warning.go: what is no failure yet.
package health
