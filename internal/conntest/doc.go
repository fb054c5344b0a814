// Package conntest opens connections for the tests of the engines that stand on one.
//
//   - open.go: [Open].
package conntest
