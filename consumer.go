package nats

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

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
	own := withDurable(*cfg)
	js, err := c.checkConsumer(ctx, op, stream, &own)
	if err != nil {
		return nil, err
	}
	consumer, err := js.CreateConsumer(ctx, stream, own)
	return consumer, jsapi.Wrap(op, path(stream, own.Name), fault.Because(ctx, err))
}

// withDurable makes a consumer with a name durable, unless it is to be dropped when inactive.
func withDurable(cfg jetstream.ConsumerConfig) jetstream.ConsumerConfig {
	if cfg.Name != "" && cfg.Durable == "" && cfg.InactiveThreshold == 0 {
		cfg.Durable = cfg.Name
	}
	if cfg.Name == "" {
		cfg.Name = cfg.Durable
	}
	return cfg
}

// checkConsumer refuses names and filters that cannot work.
func (c *Client) checkConsumer(ctx context.Context, op, stream string, cfg *jetstream.ConsumerConfig) (jetstream.JetStream, error) {
	js, err := c.consumerAPI(ctx, op, stream, cfg.Name)
	if err != nil {
		return nil, err
	}
	all := cfg.FilterSubjects
	if cfg.FilterSubject != "" {
		all = append([]string{cfg.FilterSubject}, all...)
	}
	for _, filter := range all {
		if fault := subjects.Fault(filter, true); fault != "" {
			return nil, fail(op, path(stream, cfg.Name), ErrInvalidSubject, "filter %q: %s", filter, fault)
		}
	}
	if len(all) == 1 { // upstream puts it into the subject of the request
		line := len(c.api.Subject("CONSUMER.CREATE.")) + len(stream) + 1 + subjects.MaxName + 1 + len(all[0]) + c.lineRoom()
		if fault := c.lineFault(line); fault != "" {
			return nil, fail(op, path(stream, cfg.Name), ErrInvalidSubject, "filter %q: %s", all[0], fault)
		}
	}
	return js, nil
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
	handle, err := jsapi.Look(ctx, c.api, func(ctx context.Context) (jetstream.Consumer, error) { return js.Consumer(ctx, stream, consumer) })
	return handle, jsapi.Wrap(op, path(stream, consumer), fault.Because(ctx, err))
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
	return jsapi.Wrap(op, path(stream, consumer), fault.Because(ctx, js.DeleteConsumer(ctx, stream, consumer)))
}

// PauseConsumer stops a consumer's deliveries until the given time or ResumeConsumer, on the server
// and so for all who pull from it. What was delivered already can be acknowledged. A time in the past
// resumes it. It needs server 2.11. The errors are those of GetConsumer.
func (c *Client) PauseConsumer(ctx context.Context, stream, consumer string, until time.Time) error {
	const op = "pause consumer"
	return c.setPause(ctx, op, stream, consumer, func(js jetstream.JetStream) error {
		_, err := js.PauseConsumer(ctx, stream, consumer, until)
		return err
	})
}

// ResumeConsumer ends a pause; a consumer that is not paused stays as it is. The errors are those of
// GetConsumer.
func (c *Client) ResumeConsumer(ctx context.Context, stream, consumer string) error {
	const op = "resume consumer"
	return c.setPause(ctx, op, stream, consumer, func(js jetstream.JetStream) error {
		_, err := js.ResumeConsumer(ctx, stream, consumer)
		return err
	})
}

func (c *Client) setPause(ctx context.Context, op, stream, consumer string, set func(jetstream.JetStream) error) error {
	if err := checkName(op, "consumer", consumer); err != nil {
		return err
	}
	js, err := c.consumerAPI(ctx, op, stream, consumer)
	if err != nil {
		return err
	}
	return jsapi.Wrap(op, path(stream, consumer), fault.Because(ctx, set(js)))
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
