// Package drift is how two configurations of a stream, a consumer or a bucket differ, field by field,
// and what it would cost to make the one into the other.
//
// A field that the wanted configuration leaves at zero means "as it is", unless the comparison is to be
// exact, and metadata is merged by key. Whether the server can change a field, and what harm that does,
// is a rule of that field; what has no rule, since a newer upstream brought it, counts as harm.
//
//   - drift.go: [Difference], and the comparisons.
//   - rules.go: a rule for each field.
package drift
