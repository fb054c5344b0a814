// Package serverurl is the rules of a NATS server's URL: what it may be, what of it may be shown, and
// which URLs are of the same server.
//
//   - parse.go: reading one, and comparing.
//   - redact.go: hiding what is secret in one, or in what was meant to be one.
package serverurl
