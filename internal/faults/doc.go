// Package faults has the long tests: what is left after servers were killed, stopped and restarted
// under load. `make faults` runs them.
package faults
