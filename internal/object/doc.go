// Package object keeps objects of any size in a stream, in the layout of ADR-20: chunks under one subject for each
// upload, and metadata under one subject for each name.
//
// An object is what its metadata says. An upload stores chunks under a new identifier, the NUID, and then the
// metadata, in the place of the very version that it has seen; only then are that version's chunks removed. So readers
// get the old content or the new one, and what fails leaves chunks without an object, which are removed at once or by a
// Sweep. Metadata is read from the stream's leader.
//
// Two names may have the same chunks while an object is renamed. Both say so in their metadata, that of the old name
// decides which of them keeps the chunks, and these go only when no other name has them or gets them. A Sweep claims what it is about to remove before it looks
// for the objects a last time, and an upload that took long looks for the claim after its commit.
//
// Other clients write metadata in ways of their own. What can be read of it is read, and in doubt nothing is removed.
//
//   - store.go: [Store], its [Options] and [Reports].
//   - version.go: metadata as it is stored, and questions about it.
//   - meta.go: storing metadata, and removing messages.
//   - source.go: reading what is uploaded, beside the upload.
//   - write.go: [Store.Put], the chunks.
//   - pace.go: how many chunks are in flight, and for how long.
//   - commit.go: making the chunks the object, or removing them.
//   - room.go: what goes first in a full bucket.
//   - open.go: what a name leads to, and the first of its chunks.
//   - read.go: [Reader], the chunks in order, checked.
//   - get.go: whole downloads, which begin anew when the object is replaced.
//   - file.go: downloads to files, and through what is no file.
//   - owner_unix.go: whose the file is.
//   - owner_other.go: the same where nobody owns files.
//   - edit.go: deletions, other metadata, links.
//   - move.go: renames, and which name keeps the chunks.
//   - sweep.go: removing what no object has.
//   - watch.go: [Watcher], what changes.
package object
