package jsapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/drift"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// ConsumerConfig returns cfg as the API gets it, or why it cannot work: durable where it has a name, unless it is to be
// dropped when inactive.
func (a *API) ConsumerConfig(op, stream string, cfg jetstream.ConsumerConfig) (jetstream.ConsumerConfig, error) {
	if cfg.Name != "" && cfg.Durable == "" && cfg.InactiveThreshold == 0 {
		cfg.Durable = cfg.Name
	}
	cfg.Name = cmp.Or(cfg.Name, cfg.Durable)
	filters := cfg.FilterSubjects
	if cfg.FilterSubject != "" {
		filters = append([]string{cfg.FilterSubject}, filters...)
	}
	for _, filter := range filters {
		text := subjects.Fault(filter, true)
		if text == "" && len(filters) == 1 { // upstream puts it into the subject of the request
			text = a.conn.LineFault(len(a.Subject("CONSUMER.CREATE.")) + len(stream) + 1 + subjects.MaxName + 1 + len(filter) + a.conn.LineRoom())
		}
		if text != "" {
			return cfg, fault.New(op, fault.Path(stream, cfg.Name), fault.ErrInvalidSubject, "filter %q: %s", filter, text)
		}
	}
	return cfg, nil
}

// CreateConsumer makes a consumer, unless it is there with this configuration. Where it is there with another one, the
// error says what differs.
func (a *API) CreateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	made, err := Look(ctx, a, func(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
		return js.CreateConsumer(ctx, stream, cfg)
	})
	if !errors.Is(err, jetstream.ErrConsumerExists) {
		return made, err
	}
	if live, unknown := a.ConsumerInfo(ctx, stream, cfg.Name); unknown == nil { // else what is known is told
		if _, found := drift.Consumer(live.Config, cfg); len(found) > 0 {
			err = fmt.Errorf("it differs: %v; EnsureConsumer changes what can be changed: %w", found, err)
		}
	}
	return nil, err
}
