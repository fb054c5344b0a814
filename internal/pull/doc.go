// Package pull fetches a few messages of a consumer for one call.
//
// A call asks for as many as it wants, and the server answers with the first and what else there is. A call that
// ends before leaves its pull to the next call for the same consumer: to unsubscribe from what the server may still
// answer would cost the messages on their way a delivery. When no call comes, the pull is ended and what has
// come of it is handed back.
//
//   - pull.go: [Puller] and its pulls.
//   - parked.go: those that were left.
//   - ackwait.go: for how long a consumer waits for the acknowledgement of what was pulled.
package pull
