package nats

import (
	"cmp"
	"context"
	"iter"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lease"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pull"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// setupJetStream makes what asks JetStream. Where it is not enabled the calls that begin with a name are refused, but
// what a consumer delivers to a plain subscription may be acknowledged.
func (c *Client) setupJetStream() (err error) {
	o := jsapi.Options{
		Domain: c.cfg.JetStreamDomain, Prefix: c.cfg.JetStreamAPIPrefix, Timeout: c.cfg.RequestTimeout, Upstream: c.opts.jetStream,
	}
	if c.api, err = jsapi.New(c.conn, o); err != nil {
		return err
	}
	if c.cfg.JetStreamEnabled {
		c.js = c.api.JetStream()
	}
	c.publisher = publish.New(c.life.Context(), c.api, c.cfg.RequestTimeout)
	c.publisher.Hook(c.hooks())
	c.puller = pull.New(c.api, c.life)
	c.consumer = consume.New(c.api, c.publisher, c.life, c.cfg.DrainTimeout, c.log, consumptionReports{c})
	c.buckets = keyvalue.New(c.api, c.publisher, c.life, c.cfg.RequestTimeout, keyReports{c})
	c.leases = lease.New(c.life, c.conn.IsUp, c.nc.Opts.Name, leaseReports{c})
	return nil
}

// jetStream waits for the connection for a call, or says why there is no JetStream for it.
func (c *Client) jetStream(ctx context.Context, op, target string) error {
	if err := c.checkJetStream(ctx, op, target); err != nil {
		return err
	}
	return c.awaitConnection(ctx, op, target)
}

// checkJetStream is jetStream for those who wait by themselves.
func (c *Client) checkJetStream(ctx context.Context, op, target string) error {
	switch {
	case c.js == nil:
		return fail(op, target, ErrJetStreamDisabled, "set jetstream_enabled to true")
	case ctx == nil:
		return errNilContext(op, target)
	}
	return nil
}

// CreateStream creates a stream and returns upstream's handle of it. Creating it again with the
// same configuration is no error, with another one it is ErrAlreadyExists. Where cfg leaves them at
// zero, Replicas and Storage come from Config.DefaultStreamReplicas and DefaultStorageType. A nil
// cfg or a bad name is ErrInvalidArgument.
func (c *Client) CreateStream(ctx context.Context, cfg *jetstream.StreamConfig) (jetstream.Stream, error) {
	const op = "create stream"
	own, err := c.streamConfig(ctx, op, cfg)
	if err != nil {
		return nil, err
	}
	stream, err := jsapi.Look(ctx, c.api, func(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
		return js.CreateStream(ctx, own)
	})
	return stream, jsapi.Wrap(op, own.Name, c.api.Overlap(ctx, &own, err))
}

// UpdateStream changes a stream's configuration to cfg, whatever that costs: lowering a limit
// deletes messages. It returns ErrStreamNotFound when there is no such stream.
func (c *Client) UpdateStream(ctx context.Context, cfg *jetstream.StreamConfig) (jetstream.Stream, error) {
	const op = "update stream"
	own, err := c.streamConfig(ctx, op, cfg)
	if err != nil {
		return nil, err
	}
	stream, err := jsapi.Look(ctx, c.api, func(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
		return js.UpdateStream(ctx, own)
	})
	return stream, jsapi.Wrap(op, own.Name, c.api.Overlap(ctx, &own, err))
}

// streamConfig checks a stream's configuration and returns a copy with the client's defaults.
func (c *Client) streamConfig(ctx context.Context, op string, cfg *jetstream.StreamConfig) (own jetstream.StreamConfig, err error) {
	if cfg == nil {
		return own, fail(op, "", ErrInvalidArgument, "the StreamConfig is nil")
	}
	if err := c.checkCall(ctx, op, cfg.Name, ""); err != nil {
		return own, err
	}
	for _, subject := range cfg.Subjects {
		if fault := subjects.Fault(subject, true); fault != "" {
			return own, fail(op, cfg.Name, ErrInvalidSubject, "subject %q: %s", subject, fault)
		}
	}
	own = *cfg
	own.Replicas, own.Storage = c.streamDefaults(cfg.Replicas, cfg.Storage)
	return own, nil
}

// streamDefaults fills in what a stream's or bucket's configuration leaves at zero.
func (c *Client) streamDefaults(replicas int, storage jetstream.StorageType) (int, jetstream.StorageType) {
	if storage == jetstream.FileStorage && c.cfg.DefaultStorageType == storageMemory {
		storage = jetstream.MemoryStorage
	}
	return cmp.Or(replicas, c.cfg.DefaultStreamReplicas), storage
}

// GetStream returns upstream's handle of a stream, or ErrStreamNotFound.
func (c *Client) GetStream(ctx context.Context, name string) (jetstream.Stream, error) {
	const op = "get stream"
	if err := c.checkCall(ctx, op, name, ""); err != nil {
		return nil, err
	}
	stream, err := jsapi.Look(ctx, c.api, func(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
		return js.Stream(ctx, name)
	})
	return stream, jsapi.Wrap(op, name, err)
}

// GetStreamInfo asks the server for a stream's configuration and state. It returns
// ErrStreamNotFound when there is no such stream.
func (c *Client) GetStreamInfo(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	const op = "get stream"
	if err := c.checkCall(ctx, op, name, ""); err != nil {
		return nil, err
	}
	info, err := c.api.StreamInfo(ctx, name)
	return info, jsapi.Wrap(op, name, err)
}

// PurgeStream deletes the stream's messages, or those that the options select. What is stored meanwhile
// stays. It returns ErrStreamNotFound when there is no such stream.
func (c *Client) PurgeStream(ctx context.Context, name string, opts ...jetstream.StreamPurgeOpt) error {
	const op = "purge stream"
	if err := c.checkCall(ctx, op, name, ""); err != nil {
		return err
	}
	ctx, cancel := c.conn.Deadline(ctx)
	defer cancel()
	var question jetstream.StreamPurgeRequest
	for _, opt := range opts {
		if err := opt(&question); err != nil {
			return fail(op, name, ErrInvalidArgument, "%w", err)
		}
	}
	return jsapi.Wrap(op, name, c.api.Purge(ctx, name, question))
}

// DeleteStream deletes a stream with its messages and consumers. It returns ErrStreamNotFound when
// there is no such stream.
func (c *Client) DeleteStream(ctx context.Context, name string) error {
	const op = "delete stream"
	if err := c.checkCall(ctx, op, name, ""); err != nil {
		return err
	}
	return jsapi.Wrap(op, name, c.api.Ask(ctx, "STREAM.DELETE."+name, nil, nil))
}

// Streams returns the account's streams, asking the server for a page of them at a time. An error
// ends the sequence. Without a deadline in ctx, Config.RequestTimeout bounds each page.
func (c *Client) Streams(ctx context.Context) iter.Seq2[*jetstream.StreamInfo, error] {
	const op = "list streams"
	return func(yield func(*jetstream.StreamInfo, error) bool) {
		if err := c.jetStream(ctx, op, ""); err != nil {
			yield(nil, err)
			return
		}
		for info, err := range c.api.Streams(ctx) {
			if !yield(info, jsapi.Wrap(op, "", err)) {
				return
			}
		}
	}
}
