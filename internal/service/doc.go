// Package service is what a service is to those who look for services (ADR-32): an identity, endpoints with their
// counters, and the answers to PING, INFO and STATS. It knows nothing of how requests come and are answered.
//
//   - service.go: [Service], and what it tells.
//   - endpoint.go: [Endpoint], and what is counted.
package service
