// Package fault is how errors are made: an operation, what it was about, a sentinel that errors.Is
// finds, and the cause, which stays within reach of errors.Is and errors.As.
//
// The root package names the sentinels anew, with what each of them means to a caller, and the
// engines use these: they are the same values.
//
//   - fault.go: [Error], how one is made and printed, and [Joined].
//   - ended.go: [Ended] and [Because], why a context has ended.
//   - sentinels.go: the sentinels.
//   - handler.go: what a panic becomes.
//   - denial.go: what a server's permission error denies.
//   - upstream.go: [Kind], the sentinel of an error of nats.go or of the JetStream API.
//   - class.go: [Classify], whether an error may pass, and whether what was asked for may have been done.
//   - codes.go: the errors of the JetStream API, and which of them pass.
package fault
