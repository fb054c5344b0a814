// Package consultest runs real Consul agents for tests.
//
// An agent runs in Consul's development mode: one server on free loopback ports that keeps
// everything in memory and answers some tenths of a second after its start.
//
//   - agent.go: an [Agent] and its life.
//   - options.go: its options and configuration.
//   - register.go: registering instances and tokens.
package consultest
