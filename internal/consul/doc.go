// Package consul finds the NATS servers that are registered as a service in Consul, and follows their
// changes.
//
// A [Resolver] keeps neither a connection nor a goroutine between two queries. Watch asks with blocking
// queries: Consul answers one for an index when the service has changed since, or when its wait is
// over. An answer without a usable instance has an index and is waited out; no answer to a blocking
// query says little, for a proxy may have ended it; no answer to one that Consul should answer at once
// is an outage, which is told once and asked through with pauses that grow.
//
// Nothing that Consul or what stands before it says is trusted: an answer is read up to 8 MiB, an
// instance that makes no URL is skipped, and neither token nor foreign text in full reaches a log line or an error.
//
//   - resolver.go: [Resolver], one query, and what its failure means.
//   - watch.go: following.
//   - instance.go: the URL of an instance.
//   - client.go: upstream's client, from [Config] and the CONSUL_* variables of Consul's own tools.
package consul
