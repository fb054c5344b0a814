package main

import (
	"context"

	"golang.org/x/time/rate"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// throttle lets no more messages and requests leave than the limiter allows. The others wait for their turn, as long as
// their context lets them.
func throttle(limiter *rate.Limiter) nats.Interceptor {
	return nats.Interceptor{
		Publish: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
			if err := limiter.Wait(ctx); err != nil {
				return err
			}
			return next(ctx, msg)
		},
		Request: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) (*nats.Message, error)) (*nats.Message, error) {
			if err := limiter.Wait(ctx); err != nil {
				return nil, err
			}
			return next(ctx, msg)
		},
	}
}
