package main

import (
	"context"
	"sync"

	"github.com/sony/gobreaker/v2"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// breaker refuses requests to a subject at once when those before have failed as the settings say, until they let one
// try. A failure is what may pass by itself: whoever asks for the impossible breaks nothing.
func breaker(settings gobreaker.Settings) nats.Interceptor {
	settings.IsSuccessful = func(err error) bool { return !nats.IsRetryable(err) }
	var subjects sync.Map
	return nats.Interceptor{
		Request: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) (*nats.Message, error)) (*nats.Message, error) {
			found, ok := subjects.Load(msg.Subject)
			if !ok {
				found, _ = subjects.LoadOrStore(msg.Subject, gobreaker.NewCircuitBreaker[*nats.Message](settings))
			}
			circuit, _ := found.(*gobreaker.CircuitBreaker[*nats.Message])
			return circuit.Execute(func() (*nats.Message, error) { return next(ctx, msg) })
		},
	}
}
