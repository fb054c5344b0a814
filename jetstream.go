package nats

import (
	"context"
	"iter"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// setupJetStream makes what asks JetStream.
func (c *Client) setupJetStream() (err error) {
	if !c.cfg.JetStreamEnabled {
		return nil
	}
	o := jsapi.Options{Domain: c.cfg.JetStreamDomain, Prefix: c.cfg.JetStreamAPIPrefix, Timeout: c.cfg.RequestTimeout}
	if c.api, err = jsapi.New(c.conn, o); err != nil {
		return err
	}
	c.js = c.api.JetStream()
	c.async = newAsyncPublisher(c)
	return nil
}

// jetStream waits for the connection and returns upstream's handle for a call, or why there is none.
func (c *Client) jetStream(ctx context.Context, op, target string) (jetstream.JetStream, error) {
	js, err := c.jetStreamHandle(ctx, op, target)
	if err != nil {
		return nil, err
	}
	return js, c.awaitConnection(ctx, op, target)
}

// jetStreamHandle is jetStream for those who wait by themselves.
func (c *Client) jetStreamHandle(ctx context.Context, op, target string) (jetstream.JetStream, error) {
	switch {
	case c.js == nil:
		return nil, fail(op, target, ErrJetStreamDisabled, "set jetstream_enabled to true")
	case ctx == nil:
		return nil, errNilContext(op, target)
	}
	return c.js, nil
}

// CreateStream creates a stream and returns upstream's handle of it. Creating it again with the
// same configuration is no error, with another one it is ErrAlreadyExists. Where cfg leaves them at
// zero, Replicas and Storage come from Config.DefaultStreamReplicas and DefaultStorageType. A nil
// cfg or a bad name is ErrInvalidArgument.
func (c *Client) CreateStream(ctx context.Context, cfg *jetstream.StreamConfig) (jetstream.Stream, error) {
	const op = "create stream"
	js, own, err := c.streamConfig(ctx, op, cfg)
	if err != nil {
		return nil, err
	}
	stream, err := js.CreateStream(ctx, own)
	return stream, jsapi.Wrap(op, own.Name, fault.Because(ctx, err))
}

// UpdateStream changes a stream's configuration to cfg, whatever that costs: lowering a limit
// deletes messages. It returns ErrStreamNotFound when there is no such stream.
func (c *Client) UpdateStream(ctx context.Context, cfg *jetstream.StreamConfig) (jetstream.Stream, error) {
	const op = "update stream"
	js, own, err := c.streamConfig(ctx, op, cfg)
	if err != nil {
		return nil, err
	}
	stream, err := js.UpdateStream(ctx, own)
	return stream, jsapi.Wrap(op, own.Name, fault.Because(ctx, err))
}

// streamConfig checks a stream's configuration and returns a copy with the client's defaults.
func (c *Client) streamConfig(ctx context.Context, op string, cfg *jetstream.StreamConfig) (jetstream.JetStream, jetstream.StreamConfig, error) {
	var own jetstream.StreamConfig
	if cfg == nil {
		return nil, own, fail(op, "", ErrInvalidArgument, "the StreamConfig is nil")
	}
	js, err := c.jetStream(ctx, op, cfg.Name)
	if err != nil {
		return nil, own, err
	}
	if err := checkName(op, "stream", cfg.Name); err != nil {
		return nil, own, err
	}
	for _, subject := range cfg.Subjects {
		if fault := subjects.Fault(subject, true); fault != "" {
			return nil, own, fail(op, cfg.Name, ErrInvalidSubject, "subject %q: %s", subject, fault)
		}
	}
	own = *cfg
	own.Replicas, own.Storage = c.streamDefaults(cfg.Replicas, cfg.Storage)
	return js, own, nil
}

// streamDefaults fills in what a stream's or bucket's configuration leaves at zero.
func (c *Client) streamDefaults(replicas int, storage jetstream.StorageType) (int, jetstream.StorageType) {
	if replicas == 0 {
		replicas = c.cfg.DefaultStreamReplicas
	}
	if storage == jetstream.FileStorage && c.cfg.DefaultStorageType == storageMemory {
		storage = jetstream.MemoryStorage
	}
	return replicas, storage
}

// GetStream returns upstream's handle of a stream, or ErrStreamNotFound.
func (c *Client) GetStream(ctx context.Context, name string) (jetstream.Stream, error) {
	const op = "get stream"
	js, err := c.jetStream(ctx, op, name)
	if err != nil {
		return nil, err
	}
	if err := checkName(op, "stream", name); err != nil {
		return nil, err
	}
	stream, err := jsapi.Look(ctx, c.api, func(ctx context.Context) (jetstream.Stream, error) { return js.Stream(ctx, name) })
	return stream, jsapi.Wrap(op, name, fault.Because(ctx, err))
}

// GetStreamInfo asks the server for a stream's configuration and state. It returns
// ErrStreamNotFound when there is no such stream.
func (c *Client) GetStreamInfo(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	stream, err := c.GetStream(ctx, name) // it asks the server; a second question would say the same
	if err != nil {
		return nil, err
	}
	return stream.CachedInfo(), nil
}

// PurgeStream deletes the stream's messages, or those that the options select. It returns
// ErrStreamNotFound when there is no such stream.
func (c *Client) PurgeStream(ctx context.Context, name string, opts ...jetstream.StreamPurgeOpt) error {
	stream, err := c.GetStream(ctx, name)
	if err != nil {
		return err
	}
	return jsapi.Wrap("purge stream", name, fault.Because(ctx, stream.Purge(ctx, opts...)))
}

// DeleteStream deletes a stream with its messages and consumers. It returns ErrStreamNotFound when
// there is no such stream.
func (c *Client) DeleteStream(ctx context.Context, name string) error {
	const op = "delete stream"
	js, err := c.jetStream(ctx, op, name)
	if err != nil {
		return err
	}
	if err := checkName(op, "stream", name); err != nil {
		return err
	}
	return jsapi.Wrap(op, name, fault.Because(ctx, js.DeleteStream(ctx, name)))
}

// Streams returns the account's streams, asking the server for a page of them at a time. An error
// ends the sequence. Without a deadline in ctx, Config.RequestTimeout bounds the whole loop.
func (c *Client) Streams(ctx context.Context) iter.Seq2[*jetstream.StreamInfo, error] {
	const op = "list streams"
	return func(yield func(*jetstream.StreamInfo, error) bool) {
		js, err := c.jetStream(ctx, op, "")
		if err != nil {
			yield(nil, err)
			return
		}
		ctx, cancel := c.deadline(ctx)
		defer cancel()
		ctx, abandon := context.WithCancel(ctx) // for a loop that is left early
		defer abandon()
		list := js.ListStreams(ctx)
		for info := range list.Info() {
			if !yield(info, nil) {
				return
			}
		}
		if err := list.Err(); err != nil {
			yield(nil, jsapi.Wrap(op, "", fault.Because(ctx, err)))
		}
	}
}
