// Package lease gives a key of a bucket to one holder at a time.
//
// A lease is the value of a key that lives for its length only. Who finds the key absent writes it, over the very
// revision that was seen, and holds it: the revision is the token, which grows from holder to holder. A holder writes
// the key anew three times in its length. The lease is counted from before each of these writes was sent, and ends for
// the holder a tenth of its length before it ends for the server; a write that finds another revision ends it at once.
// Who gives it up deletes the key; so does, beside its caller, who wrote it and heard no answer in time.
//
// The bucket must let a key live for that long: a bucket that deletes its values sooner is refused, also when it begins
// to do so while the lease is held. Who waits follows the key and asks for it twice a second.
//
//   - lease.go: [Leases] of a client, their [Reports], and the [Lease]: its renewals, and its end.
//   - acquire.go: waiting for a lease, and taking it.
//   - lead.go: a function that runs while a lease is held.
package lease
