// Package doctor finds out why a service cannot work with NATS: it does what the service's client would do, one
// step after the other, and says of each whether it works and what helps if it does not.
//
//	for f := range doctor.Run(ctx, cfg, doctor.Wants{Publish: []string{"orders.created"}, Streams: []string{"ORDERS"}}) {
//		fmt.Println(f)
//	}
//
// The checks are, in their order:
//
//   - configuration: what [nats.Config.Validate] finds;
//   - consul: which servers Consul names, where the configuration asks it;
//   - dns, tcp, greeting, tls, authentication: of each server, how far a connection comes;
//   - publish, subscribe: what the user may do, of what is wanted;
//   - jetstream, account limits: whether JetStream answers, and whether more than 80 % of a limit is used;
//   - stream, consumer, bucket, object bucket: whether what is wanted exists and can be used;
//   - clock: whether this machine's clock and JetStream's agree.
//
// Each is a [Finding]: passed, failed, or not checked, with the reason: mostly that it stands on what has failed.
//
// Nothing is stored, delivered or taken. A right is read from what the server tells a user of its own rights
// ($SYS.REQ.USER.INFO). Where it does not tell, the right to publish is tried with a message whose reply
// subject no server takes, so that it ends at the permission, and only the server's log has a line of it
// ("Publish Violation"); the right to subscribe is tried with a subscription that ends at once.
//
// The package is for start-up checks, commands and tests; it asks the server a dozen questions, which is too
// much for a probe every few seconds: that is [nats.Client.Health].
//
//   - doctor.go: Run, and the order of the checks.
//   - finding.go: Finding and Wants.
//   - server.go: Consul, and how far a connection comes.
//   - tls.go: what is wrong with certificates.
//   - rights.go: what the user may do.
//   - jetstream.go: JetStream, and what is wanted of it.
package doctor
