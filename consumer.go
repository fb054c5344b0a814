package nats

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
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
	if err := c.checkConsumer(ctx, op, stream, &own); err != nil {
		return nil, err
	}
	consumer, err := jsapi.Look(ctx, c.api, func(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
		return js.CreateConsumer(ctx, stream, own)
	})
	return consumer, jsapi.Wrap(op, path(stream, own.Name), err)
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
func (c *Client) checkConsumer(ctx context.Context, op, stream string, cfg *jetstream.ConsumerConfig) error {
	if err := c.checkCall(ctx, op, stream, cfg.Name); err != nil {
		return err
	}
	all := cfg.FilterSubjects
	if cfg.FilterSubject != "" {
		all = append([]string{cfg.FilterSubject}, all...)
	}
	for _, filter := range all {
		if fault := subjects.Fault(filter, true); fault != "" {
			return fail(op, path(stream, cfg.Name), ErrInvalidSubject, "filter %q: %s", filter, fault)
		}
	}
	if len(all) == 1 { // upstream puts it into the subject of the request
		line := len(c.api.Subject("CONSUMER.CREATE.")) + len(stream) + 1 + subjects.MaxName + 1 + len(all[0]) + c.lineRoom()
		if fault := c.lineFault(line); fault != "" {
			return fail(op, path(stream, cfg.Name), ErrInvalidSubject, "filter %q: %s", all[0], fault)
		}
	}
	return nil
}

// GetConsumer returns upstream's handle of a consumer, or ErrStreamNotFound or ErrConsumerNotFound.
func (c *Client) GetConsumer(ctx context.Context, stream, consumer string) (jetstream.Consumer, error) {
	const op = "get consumer"
	if err := c.checkNamed(ctx, op, stream, consumer); err != nil {
		return nil, err
	}
	handle, err := jsapi.Look(ctx, c.api, func(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
		return js.Consumer(ctx, stream, consumer)
	})
	return handle, jsapi.Wrap(op, path(stream, consumer), err)
}

// GetConsumerInfo asks the server for a consumer's configuration and progress. It returns
// ErrStreamNotFound or ErrConsumerNotFound when there is no such consumer.
func (c *Client) GetConsumerInfo(ctx context.Context, stream, consumer string) (*jetstream.ConsumerInfo, error) {
	const op = "get consumer"
	if err := c.checkNamed(ctx, op, stream, consumer); err != nil {
		return nil, err
	}
	info, err := c.api.ConsumerInfo(ctx, stream, consumer)
	return info, jsapi.Wrap(op, path(stream, consumer), err)
}

// DeleteConsumer deletes a consumer and its progress. It returns ErrStreamNotFound or
// ErrConsumerNotFound when there is no such consumer.
func (c *Client) DeleteConsumer(ctx context.Context, stream, consumer string) error {
	return c.askConsumer(ctx, "delete consumer", "DELETE", stream, consumer, nil, &jsapi.Refusal{})
}

// PauseConsumer stops a consumer's deliveries until the given time or ResumeConsumer, on the server
// and so for all who pull from it. What was delivered already can be acknowledged. A time in the past
// resumes it. It needs server 2.11. The errors are those of GetConsumer.
func (c *Client) PauseConsumer(ctx context.Context, stream, consumer string, until time.Time) error {
	question := map[string]time.Time{"pause_until": until}
	return c.askConsumer(ctx, "pause consumer", "PAUSE", stream, consumer, question, &jsapi.Refusal{})
}

// ResumeConsumer ends a pause; a consumer that is not paused stays as it is. The errors are those of
// GetConsumer.
func (c *Client) ResumeConsumer(ctx context.Context, stream, consumer string) error {
	return c.askConsumer(ctx, "resume consumer", "PAUSE", stream, consumer, struct{}{}, &jsapi.Refusal{})
}

func (c *Client) askConsumer(ctx context.Context, op, verb, stream, consumer string, question any, answer jsapi.Answer) error {
	if err := c.checkNamed(ctx, op, stream, consumer); err != nil {
		return err
	}
	return jsapi.Wrap(op, path(stream, consumer), c.api.Ask(ctx, "CONSUMER."+verb+"."+stream+"."+consumer, question, answer))
}

// checkCall checks what every call on a stream, and unless its name is empty on a consumer, needs.
func (c *Client) checkCall(ctx context.Context, op, stream, consumer string) error {
	if err := c.jetStream(ctx, op, path(stream, consumer)); err != nil {
		return err
	}
	if err := checkName(op, "stream", stream); err != nil || consumer == "" {
		return err
	}
	return checkName(op, "consumer", consumer)
}

// checkNamed is checkCall for a consumer that must have a name.
func (c *Client) checkNamed(ctx context.Context, op, stream, consumer string) error {
	if err := checkName(op, "consumer", consumer); err != nil {
		return err
	}
	return c.checkCall(ctx, op, stream, consumer)
}

// path names a consumer in error texts.
func path(stream, consumer string) string {
	if consumer == "" {
		return stream
	}
	return stream + "/" + consumer
}
