// Package auth is what a connection shows of itself, and what it believes of the server: credentials, certificates and
// authorities, as their files are at one moment.
//
// Files are read again for each connection, so that what is renewed is used without a restart. Of the TLS files the last
// good ones are kept: a file that is being replaced may be read half. No error has a secret in it.
//
//   - credentials.go: [Credentials], and the [Keys] of a configuration that they are read from.
//   - tls.go: [TLS].
package auth
