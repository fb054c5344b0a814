// Package chaos breaks servers, lines and processes at random under a mixed load, and has an independent checker look at
// what is left. Everything is in its tests, for a test binary is also the servers and the workers.
//
// A run is a sequence of rounds, each with servers of its own, in processes of their own: one node, a cluster of three, or
// a leaf with a domain of its own. Two workers, processes too, do all that the library offers, over proxies, and write what
// they did and saw to a file. The round's schedule of faults follows from its seed. When the time is up everything is
// mended; the workers stop what they began and are told to end, the servers' truth is read, and [check] compares the two.
//
// Faults come in two lanes, so that often two are at once, but never two of the same thing. Each tells the checker what it
// brings; a call that fails with an error that no fault of the time brings is a violation.
//
// A round that fails keeps its directory: the seed, the schedule, the histories, the truth and the servers' logs. The
// checker runs on it again with -chaos.check. chaos.json has what the table has: the rows of each round by load, and of
// each fault how often it was and the worst gap of each load that it was in; times are in nanoseconds.
package chaos
