// Package event has the factory of the event bus's client where the specification of the platform's SDK has it.
//
// It is a module of its own, to be laid one level up, beside the folder of [nats.Client]: see
// docs/from-the-specification.md.
package event

import "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"

// EventClientFactory makes clients from the service's configuration file and environment.
type EventClientFactory = nats.EventClientFactory

// NewEventClientFactory loads the configuration, from configs/sdk/nats.yaml and the other places of
// [nats.LoadConfig]. The options are those of every client that the factory makes.
func NewEventClientFactory(opts ...nats.Option) (*EventClientFactory, error) {
	return nats.NewEventClientFactory(opts...)
}
