// Package wire is what NATS says on the wire, in one place: the words that the protocols of JetStream
// are made of, as the ADRs have them, and how long the lines are in which they stand.
//
// Nothing here sends or receives, and nothing but [Pulls] remembers: each function makes the bytes of one message,
// or says what those of one mean.
//
//   - ack.go: acknowledgements, the subjects that they go to (ADR-15), and the [Token] of the final one.
//   - pull.go: requests for a consumer's messages, and how they end (ADR-37).
//   - pulls.go: how much may be asked for at once, and what of it may still come.
//   - get.go: requests for stored messages, and the answers (ADR-31).
//   - letter.go: copies of messages that are dead or wait for their next try.
//   - puback.go: the answer to a publish.
//   - service.go: the errors of services (ADR-32).
//   - status.go: messages of the server itself, which have a status instead of a payload.
//   - ttl.go: how long a message lives.
//   - line.go: the sizes of lines and payloads, as the server counts them.
package wire
