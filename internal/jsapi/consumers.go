package jsapi

import (
	"cmp"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

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
			target := strings.TrimSuffix(stream+"/"+cfg.Name, "/")
			return cfg, fault.New(op, target, fault.ErrInvalidSubject, "filter %q: %s", filter, text)
		}
	}
	return cfg, nil
}
