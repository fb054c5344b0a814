// Package ordered reads a stream in order over every disturbance, without acknowledgements.
//
// A [Reader] pulls from an ephemeral consumer. When messages are missing, the connection was replaced, or the
// consumer is silent on a connection that works, it goes on after the last sequence with a new one. Every
// consumer has a new name: one that keeps its name cannot be made again while the node that the cluster chose
// for it is dead, which blocks upstream's ordered consumer for as long. So a server that does not answer is
// asked for another one, ever less often, and the first that it tells of is read: an answer that comes late
// counts, and what else was made is deleted.
//
// What users want is said in [Options], or done by deeds: Renew, Restart and SkipTo. Who wants the messages and no more
// has [Read].
//
//   - reader.go: [Reader], its messages, and what it takes for a disturbance.
//   - pull.go: asking for messages, and what it means when nothing comes.
//   - open.go: making a consumer, and whether its stream is the one that was read before.
//   - read.go: [Read].
//   - replica.go: what a replica of the stream has while no consumer can be made.
package ordered
