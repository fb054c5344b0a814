// Package conn is the connection of nats.go, and the one truth about it, made so that no caller waits for
// longer than its context allows.
//
// Nats.go holds its lock while it dials, shakes hands and writes to a full socket, and every method of its
// connection waits for that lock. So these three are done elsewhere.
//
// A [line] is a connection that stands: TCP, INFO, TLS, CONNECT and the first PONG are behind it when
// nats.go gets it, and nats.go's own part of the handshake is answered from memory. Lines are made in
// rounds over the servers: the next one is begun when the last has failed or is silent, and the first that
// stands is taken. Nats.go meanwhile sleeps in its reconnect loop, without its lock, and goes on buffering:
// ReconnectToServerCB begins a round, ForceReconnect ends the sleep, and Dial hands the line over. The
// first connection is made in the same way, and so is the one for which a server is left at will: it
// stands before the old one is given up.
//
// What nats.go writes to a line is queued, and a goroutine sends it. Callers wait for room in the queue
// before they enter nats.go, under their own contexts. Only who uses nats.go's connection directly can
// fill the queue, and only such users are held up then. A line whose peer takes no byte for a while, or
// answers no ping that has left the queue, is dead; one that is only slow is not.
//
// What is read is followed: an -ERR that would make nats.go close the connection for good becomes an error
// of reading, after which it reconnects.
//
// TLS and credentials are seen to here, with the files of the moment, and nats.go is told of neither. Three
// kinds of connection are different. Over ws:// and wss:// the framing is nats.go's, so it shakes hands
// itself, under its lock and within the dial timeout, with a server that has just welcomed a probe; calls
// wait at a gate meanwhile. And since nothing but frames is seen there, an -ERR closes it for good: what
// would cause one is refused before it is sent, but for what nats.go's connection is used for directly.
// A connection within the process has all of it but TLS.
//
//   - conn.go: [Conn], and how it begins and ends.
//   - pool.go: its servers.
//   - limits.go: how long a line may be.
//   - options.go: which options of nats.go are taken, handed on or refused.
//   - round.go: making a line, by trying one server after the other.
//   - dial.go: one server's addresses.
//   - greet.go: the handshake.
//   - websocket.go: where the handshake is nats.go's.
//   - reconnect.go: nats.go asks for a line and gets one.
//   - line.go: the line.
//   - queue.go: what is to be sent, and room for more.
//   - patient.go: what is dead and what is slow.
//   - protocol.go: following what the server says.
//   - link.go: whether the connection stands.
//   - flow.go: entering nats.go, and its counters.
//   - gate.go: when nobody may enter.
//   - confirm.go: what has surely arrived.
//   - requests.go: requests, whose answers outlive a reconnect.
//   - deny.go: what the server denies, and who hears of it.
//   - call.go: questions that are asked until they are answered.
//   - quiet.go: those that wait for their answers without a goroutine.
//   - leave.go: leaving a server at will.
//   - depart.go: the wish to, until one can.
//   - foreign.go: the handlers of others, waited for at the end.
package conn
