package nats

import "context"

// upstreamWatcher is what upstream's watchers of keys and of objects have in common.
type upstreamWatcher[T any] interface {
	Updates() <-chan T
	Stop() error
}

// watcher stands before a watcher of upstream's, whose goroutine hangs for ever on updates that
// nobody reads, and ends it with its context, with Stop, or with the client.
type watcher[T any] struct {
	updates chan T
	cancel  context.CancelFunc
}

func watch[T any](c *Client, ctx context.Context, start func(context.Context) (upstreamWatcher[T], error)) (*watcher[T], error) { //nolint:revive // a type parameter's method cannot be
	ctx, cancel := context.WithCancel(ctx)
	forget, err := c.onClose(cancel)
	if err != nil {
		cancel()
		return nil, err
	}
	source, err := start(ctx)
	if err != nil {
		forget()
		cancel()
		return nil, err
	}
	w := &watcher[T]{updates: make(chan T), cancel: cancel}
	go func() {
		defer close(w.updates)
		defer forget()
		defer cancel()
		w.forward(ctx, source)
		_ = source.Stop()
		for range source.Updates() { // lets upstream's goroutine go
		}
	}()
	return w, nil
}

func (w *watcher[T]) forward(ctx context.Context, source upstreamWatcher[T]) {
	for {
		select {
		case update, ok := <-source.Updates():
			if !ok {
				return
			}
			select {
			case w.updates <- update:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Updates implements jetstream.KeyWatcher and jetstream.ObjectWatcher.
func (w *watcher[T]) Updates() <-chan T { return w.updates }

// Stop implements jetstream.KeyWatcher and jetstream.ObjectWatcher. It may be called more than once.
func (w *watcher[T]) Stop() error {
	w.cancel()
	return nil
}

// collect returns what a watcher reports up to the marker of the present state. Without a deadline
// in ctx, Config.RequestTimeout applies.
func collect[T comparable](ctx context.Context, c *Client, start func(context.Context) (upstreamWatcher[T], error)) ([]T, error) {
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
		return context.Cause(ctx)
	}
	return ErrClosed
}
