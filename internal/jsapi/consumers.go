package jsapi

import (
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// Durable makes a consumer with a name durable, unless it is to be dropped when inactive.
func Durable(cfg jetstream.ConsumerConfig) jetstream.ConsumerConfig {
	if cfg.Name != "" && cfg.Durable == "" && cfg.InactiveThreshold == 0 {
		cfg.Durable = cfg.Name
	}
	if cfg.Name == "" {
		cfg.Name = cfg.Durable
	}
	return cfg
}

// CheckFilters refuses filters of a consumer that cannot work.
func (a *API) CheckFilters(op, target, stream string, cfg *jetstream.ConsumerConfig) error {
	all := cfg.FilterSubjects
	if cfg.FilterSubject != "" {
		all = append([]string{cfg.FilterSubject}, all...)
	}
	for _, filter := range all {
		text := subjects.Fault(filter, true)
		if text == "" && len(all) == 1 { // upstream puts it into the subject of the request
			text = a.conn.LineFault(len(a.Subject("CONSUMER.CREATE.")) + len(stream) + 1 + subjects.MaxName + 1 + len(filter) + a.conn.LineRoom())
		}
		if text != "" {
			return fault.New(op, target, fault.ErrInvalidSubject, "filter %q: %s", filter, text)
		}
	}
	return nil
}
