// Package health answers probes over HTTP.
//
// A [Lookout] asks the server for a sign of life on behalf of all who want to know: at most one question is
// under way, and at most one is begun a second, however many probes there are. It has a goroutine while it
// asks, and none otherwise. A probe waits for the answer no longer than a moment; what it is told then is
// since when the server is silent, and how long that may be is the probe's to say.
//
//   - lookout.go: [Lookout].
//   - answer.go: [Handler], an [Answer] and its [Details] on the wire.
//   - warning.go: what is no failure yet: [Certificates], [Account].
package health
