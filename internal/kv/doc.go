// Package kv keeps the values of keys in a stream, in the layout of ADR-8: one subject for each key, whose last
// message is its value or the mark of its deletion.
//
// A revision is a sequence of the stream. A write is stored once, and one that expects a revision is stored only over
// that one; what reads a value and writes the next begins anew when another writer was faster. Any replica answers
// reads; where a replica that lags would do harm the stream's leader is asked.
//
// Who follows keys reads the stream in order: first the present values, until all that were there at the start have
// come, then every change. The server tells neither of values that expire without a mark, nor of a purge, nor of another
// configuration: so while somebody follows a bucket, its state is asked for every few seconds, once for a client, and
// all that follow compare what they know with it. A bucket that takes the place of another of its name begins anew.
//
//   - bucket.go: [Buckets] of a client, its [Reports], and the [Bucket].
//   - key.go: what keys may be, their subjects, and the errors about them.
//   - entry.go: entries, and what of a message makes them.
//   - read.go: the latest value, that of a revision, and those of many keys.
//   - write.go: [Write], and writing over what was read.
//   - room.go: what goes first in a full bucket.
//   - facts.go: the state of a bucket, and asking for it while somebody follows.
//   - follow.go: the present values, and then the changes.
//   - walk.go: the present values alone, their keys alone, and removing the deleted ones.
//   - watch.go: [Watcher], a channel of changes.
//   - upstream.go: [WatchOf] and [SetWrite], which read options of upstream's.
//   - cache.go: [Cache], the present values in memory.
package kv
