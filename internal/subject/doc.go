// Package subject is the rules of what a caller may name: subjects, the names of streams and consumers,
// and headers. All of it is checked before anything is sent.
//
//   - subject.go: subjects and their wildcards.
//   - transform.go: what a stream's transform has made of a subject, undone.
//   - check.go: names and headers, refused with an error.
package subject
