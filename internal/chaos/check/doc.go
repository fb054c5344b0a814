// Package check compares what workers did and saw with what their servers hold. It knows nothing of the library: it reads
// the histories that the workers wrote, and the servers' truth by nats.go alone.
//
//   - record.go: what a history is made of.
//   - truth.go: what servers hold.
//   - report.go: everything together: rows, gaps, calls that came late, and what a client left.
//   - fault.go: what faults bring, which errors they explain, and when a dead line has to be noticed.
//   - core.go: messages and requests of core NATS.
//   - stream.go: messages that are stored, handled and buried.
//   - told.go: what clients say of themselves in the end.
//   - store.go: keys, caches, locks, objects, and watchers.
package check
