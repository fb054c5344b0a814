package nats

import (
	"context"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// watcher is what watchers of keys and of objects have in common.
type watcher[T any] interface {
	Updates() <-chan T
	Stop() error
}

// collect returns what a watcher reports up to the marker of the present state. Without a deadline
// in ctx, Config.RequestTimeout applies.
func collect[T comparable](ctx context.Context, c *Client, start func(context.Context) (watcher[T], error)) ([]T, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	w, err := start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Stop() }()
	var all []T
	var marker T
	for update := range w.Updates() {
		if update == marker {
			return all, nil
		}
		all = append(all, update)
	}
	return nil, ended(ctx)
}

// ended says why the updates of a watcher ended.
func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return fault.Ended(ctx)
	}
	return ErrClosed
}
