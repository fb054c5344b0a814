// Package conntest is what the tests of connections, and of the engines that stand on one, have in common.
//
//   - open.go: [Open], which opens one.
//   - words.go: [Words], which records reports.
//   - authority.go: [Authority], for TLS.
package conntest
