// Command bench compares this library with raw nats.go and with its peers: the same work, against one server in a process
// of its own, in one run.
//
//	go run . -rounds 7 -json out.json -plot out.svg
//
// A workload is a row: what is done, how often, and by which sides: raw, as one writes it with nats.go; ours; watermill
// and orbit where they offer it. A round runs every side of every workload once, each on connections and streams of its
// own, in an order that changes from round to round; so a machine that becomes slower meanwhile slows all of them. A side
// promises what the others do: who is compared with a publish that has a message ID has one as well. Streams and
// keys are in memory, for what is measured is the client and not a disk; objects, which may be large, are not.
//
// A turn that fails is told, at the end as well, and the others are taken; then the program fails. What is idle has a process
// of its own, and that nothing happens is looked at for all of them at once. A raw side is written as one who knows nats.go
// writes it, with as many round trips as the others make.
//
// Of each figure the table has the median over the rounds, and of ours to raw the geometric mean of the rounds' ratios
// with its 95 % interval. The last columns tell how far away the machine's own limits are, measured in the same rounds: to
// copy the payload in memory, and to have it go over the loopback.
//
// The files:
//
//   - main.go: the flags, the rounds, and what is printed.
//   - server.go: the server, in a process of its own.
//   - turn.go: one side's turn, in this process or one of its own.
//   - round.go: what a side works with, and how it is measured.
//   - core.go: publishing, subscriptions, requests, connecting and closing.
//   - stream.go: publishing to streams, and consuming them.
//   - store.go: key-value and objects.
//   - held.go: what is idle, in hundreds and thousands.
//   - floor.go: copies in memory and over the loopback.
//   - report.go: medians, ratios and their intervals, as table and JSON.
//   - plot.go: the ratios, drawn.
package main
