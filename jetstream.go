package nats

import (
	"context"
	"errors"
	"maps"
	"slices"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// setupJetStream makes upstream's handle, whose own default for calls without a deadline becomes
// the client's.
func (c *Client) setupJetStream() error {
	if !c.cfg.JetStreamEnabled {
		return nil
	}
	opts := []jetstream.JetStreamOpt{
		jetstream.WithDefaultTimeout(c.cfg.RequestTimeout),
		// Without it the future of a publish that no stream stores never resolves.
		jetstream.WithPublishAsyncTimeout(c.cfg.RequestTimeout),
	}
	var err error
	c.jsPrefix = jetstream.DefaultAPIPrefix
	if domain := c.cfg.JetStreamDomain; domain != "" {
		c.jsPrefix = "$JS." + domain + ".API."
		c.js, err = jetstream.NewWithDomain(c.nc, domain, opts...)
	} else {
		c.js, err = jetstream.New(c.nc, opts...)
	}
	if err != nil {
		return fail("connect", "", ErrInvalidConfig, "jetstream: %w", err)
	}
	return nil
}

// jetStream returns upstream's handle for a call, or why there is none.
func (c *Client) jetStream(ctx context.Context, op, target string) (jetstream.JetStream, error) {
	switch {
	case c.js == nil:
		return nil, fail(op, target, ErrJetStreamDisabled, "set jetstream_enabled to true")
	case ctx == nil:
		return nil, errNilContext(op, target)
	}
	return c.js, c.awaitConnection(ctx, op, target)
}

// wrapJetStream is wrap for calls to the JetStream API, which has its own way to say that it is
// not there.
func wrapJetStream(op, target string, err error) error {
	if errors.Is(err, natsgo.ErrNoResponders) && !errors.Is(err, jetstream.ErrNoStreamResponse) {
		return fail(op, target, ErrNoResponders, "no JetStream answers; is it enabled on the server and is the domain right? %w", err)
	}
	return wrap(op, target, err)
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
	return stream, wrapJetStream(op, own.Name, err)
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
	return stream, wrapJetStream(op, own.Name, err)
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
		if fault := subjectFault(subject, true); fault != "" {
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
	stream, err := js.Stream(ctx, name)
	return stream, wrapJetStream(op, name, err)
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
	return wrapJetStream("purge stream", name, stream.Purge(ctx, opts...))
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
	return wrapJetStream(op, name, js.DeleteStream(ctx, name))
}

// PublishToStream publishes data to the stream that stores subject and waits until it is stored.
// Without a deadline in ctx, Config.RequestTimeout applies. The errors are ErrNoStream when no
// stream stores the subject, ErrStreamFull, ErrPayloadTooLarge, ErrConflict when an expected
// sequence or message ID is not the last, ErrTimeout, and those of Publish. After ErrTimeout and
// ErrConnectionLost the message may be stored: give it an ID (jetstream.WithMsgID) to publish it
// again without storing it twice.
func (c *Client) PublishToStream(ctx context.Context, subject string, data []byte, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	return c.publishToStream(ctx, &natsgo.Msg{Subject: subject, Data: data}, opts)
}

// PublishMsgToStream is PublishToStream with headers. It ignores msg.Reply, and neither changes nor
// keeps msg.
func (c *Client) PublishMsgToStream(ctx context.Context, msg *Message, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	if msg == nil {
		return nil, fail("publish to stream", "", ErrInvalidArgument, "the message is nil")
	}
	m := &natsgo.Msg{Subject: msg.Subject, Header: msg.Header, Data: msg.Data}
	if len(opts) > 0 {
		m.Header = maps.Clone(msg.Header) // the options are written into it
	}
	return c.publishToStream(ctx, m, opts)
}

func (c *Client) publishToStream(ctx context.Context, m *natsgo.Msg, opts []jetstream.PublishOpt) (*jetstream.PubAck, error) {
	const op = "publish to stream"
	js, err := c.jetStream(ctx, op, m.Subject)
	if err != nil {
		return nil, err
	}
	if err := checkPublishSubject(op, m.Subject); err != nil {
		return nil, err
	}
	if err := checkHeader(op, m.Subject, m.Header); err != nil {
		return nil, err
	}
	ack, err := js.PublishMsg(ctx, m, opts...)
	return ack, wrap(op, m.Subject, err)
}

// CreateConsumer creates a consumer on a stream and returns upstream's handle of it. A consumer
// with a Name is durable: it keeps its progress until it is deleted. Upstream makes it ephemeral,
// and the server drops it 5 s after the last pull. For an ephemeral one leave the Name empty or set
// InactiveThreshold. Creating it again with the same configuration is no error, with another one it
// is ErrAlreadyExists. The other errors are ErrStreamNotFound and, for a nil cfg or bad names,
// ErrInvalidArgument.
func (c *Client) CreateConsumer(ctx context.Context, stream string, cfg *jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	const op = "create consumer"
	if cfg == nil {
		return nil, fail(op, stream, ErrInvalidArgument, "the ConsumerConfig is nil")
	}
	own := *cfg
	if own.Name != "" && own.Durable == "" && own.InactiveThreshold == 0 {
		own.Durable = own.Name
	}
	name := own.Name
	if name == "" {
		name = own.Durable
	}
	js, err := c.consumerAPI(ctx, op, stream, name)
	if err != nil {
		return nil, err
	}
	for _, filter := range slices.Concat(own.FilterSubjects, []string{own.FilterSubject}) {
		if filter == "" {
			continue
		}
		if fault := subjectFault(filter, true); fault != "" {
			return nil, fail(op, path(stream, name), ErrInvalidSubject, "filter %q: %s", filter, fault)
		}
	}
	consumer, err := js.CreateConsumer(ctx, stream, own)
	return consumer, wrapJetStream(op, path(stream, name), err)
}

// GetConsumer returns upstream's handle of a consumer, or ErrStreamNotFound or ErrConsumerNotFound.
func (c *Client) GetConsumer(ctx context.Context, stream, consumer string) (jetstream.Consumer, error) {
	const op = "get consumer"
	if err := checkName(op, "consumer", consumer); err != nil {
		return nil, err
	}
	js, err := c.consumerAPI(ctx, op, stream, consumer)
	if err != nil {
		return nil, err
	}
	handle, err := js.Consumer(ctx, stream, consumer)
	return handle, wrapJetStream(op, path(stream, consumer), err)
}

// GetConsumerInfo asks the server for a consumer's configuration and progress. It returns
// ErrStreamNotFound or ErrConsumerNotFound when there is no such consumer.
func (c *Client) GetConsumerInfo(ctx context.Context, stream, consumer string) (*jetstream.ConsumerInfo, error) {
	handle, err := c.GetConsumer(ctx, stream, consumer) // it asks the server
	if err != nil {
		return nil, err
	}
	return handle.CachedInfo(), nil
}

// DeleteConsumer deletes a consumer and its progress. It returns ErrStreamNotFound or
// ErrConsumerNotFound when there is no such consumer.
func (c *Client) DeleteConsumer(ctx context.Context, stream, consumer string) error {
	const op = "delete consumer"
	if err := checkName(op, "consumer", consumer); err != nil {
		return err
	}
	js, err := c.consumerAPI(ctx, op, stream, consumer)
	if err != nil {
		return err
	}
	return wrapJetStream(op, path(stream, consumer), js.DeleteConsumer(ctx, stream, consumer))
}

// consumerAPI checks the names of a stream and, unless it is empty, of a consumer.
func (c *Client) consumerAPI(ctx context.Context, op, stream, consumer string) (jetstream.JetStream, error) {
	js, err := c.jetStream(ctx, op, path(stream, consumer))
	if err != nil {
		return nil, err
	}
	if err := checkName(op, "stream", stream); err != nil {
		return nil, err
	}
	if consumer != "" {
		if err := checkName(op, "consumer", consumer); err != nil {
			return nil, err
		}
	}
	return js, nil
}

// path names a consumer in error texts.
func path(stream, consumer string) string {
	if consumer == "" {
		return stream
	}
	return stream + "/" + consumer
}
