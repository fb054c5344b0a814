// Package natstest runs NATS servers inside a test, and breaks them on purpose.
//
// A test gets a real nats-server in its own process, with JetStream, on a free loopback port. Nothing
// has to be installed or cleaned up, and any number of servers run side by side in parallel tests:
//
//	srv := natstest.RunServer(t)
//	client := natstest.Connect(t, srv, nil) // or natsgo.Connect(srv.URL())
//
// # Servers
//
// [RunServer] starts one server and returns when clients can use it. [Server.Stop] shuts it down,
// [Server.Restart] brings it back on the same port with the same JetStream store, and
// [Server.LameDuck] announces its end to the clients first. [WithConfig] sets any option of the
// server; [WithUser], [WithToken], [WithTLS], [WithoutJetStream] and [WithLog] cover what tests ask for most.
// [Connect] returns a client that gets in, whatever these demand.
//
// # Clusters
//
// [RunCluster] starts several servers with clustered JetStream and returns when a stream can have a
// replica on each. [Cluster.Leader] finds the server that leads a stream, [Cluster.StepDown] moves
// that lead, and [Cluster.WaitReady] waits until the cluster has recovered from what the test did.
// [RunLeaf] joins a leaf node to any server, with a JetStream domain of its own.
// For a single server use [RunServer]: it starts in milliseconds, while a cluster has to hold an
// election first, which takes most of a second, or a few seconds when the vote is split.
//
// # Faults on the wire
//
// [NewProxy] puts a TCP proxy between client and server. [Proxy.Cut] resets every connection, new ones too,
// [Proxy.BlackHole] keeps them open but moves no byte, [Proxy.Delay] and [Proxy.Throttle] make them
// slow, and [Proxy.Restore] ends it all.
//
//	p := natstest.NewProxy(t, srv.URL())
//	nc, err := natsgo.Connect(p.URL())
//	p.BlackHole() // the peer is gone, and nobody says so
//
// [SilentServer] accepts and says nothing, or no more than a greeting; [DeadHost] does not even accept.
//
// There is no way to kill a server as SIGKILL would: it lives in the test's process, and its shutdown
// writes its store out. [Proxy.Cut] and [Proxy.BlackHole] show a client all it could see of a crash.
//
// # Handlers alone
//
// [NewMessage] makes a message as a consumer delivers it, without a server, and [AcknowledgementOf] tells what a
// handler has done with it.
//
// # Rules
//
// Everything stops through [testing.TB.Cleanup]; no test has to stop anything itself. A failure ends
// the test with [testing.TB.Fatalf], so the functions and methods whose documentation says that they
// can fail the test belong on the goroutine that runs it. All others may be called from anywhere.
//
// The package imports nats-server, so only tests should import it.
package natstest
