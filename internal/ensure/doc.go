// Package ensure makes streams, consumers and buckets on the server what a configuration says.
//
// What is not there is created, what differs is changed, unless that would do harm or cannot be done: then nothing is,
// and what differs is told. The server has no compare-and-set for configurations, and its answers come late while it
// elects; so each step looks again at what is there, and who is overtaken by somebody else begins anew. A configuration
// may have a generation, which is kept in the metadata: an older one leaves a newer one as it is.
//
//   - ensure.go: [Ensurer], and what it ensures.
//   - steps.go: the steps, which are the same for all.
package ensure
