//go:build race

package states

// RaceEnabled tells whether the race detector runs, under which everything takes longer.
const RaceEnabled = true
