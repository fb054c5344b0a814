// Package freeport leases ports to the servers of tests.
//
// They come from below the range that systems hand out to outgoing connections (from 32768 on Linux, from 49152
// elsewhere). A port from that range could be taken by any connection of any process while its server is stopped, and the
// restart would fail.
//
//   - freeport.go: [Lease] and [Release], and [For] a test.
package freeport
