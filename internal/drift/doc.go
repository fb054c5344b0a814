// Package drift is how two configurations of a stream, a consumer or a bucket differ, field by field,
// and what it would cost to make the one into the other.
//
// A field that the wanted configuration leaves at zero means "as it is", unless the comparison is to be
// exact; metadata is merged by key, and a struct in a configuration by its fields. What the server writes
// in another way is no difference. A bucket is compared as the stream that it is, in what a bucket's
// configuration can say: all else of the stream is somebody else's. Whether the server can change a field, and what harm that does,
// is a rule of that field; what has no rule, since a newer upstream brought it, counts as harm.
//
//   - drift.go: [Difference], and the comparisons.
//   - normal.go: what is another way to say the same.
//   - bucket.go: the streams of buckets.
//   - rules.go: a rule for each field.
package drift
