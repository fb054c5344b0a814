package settings

import (
	"fmt"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Problems is all that is wrong with a configuration.
type Problems []problem

type problem struct {
	where  string // "consul.address", "nats.yaml:7: timeout" or "ISA_CLOUD_NATS_TIMEOUT"
	reason error
}

// Add notes what is wrong with a key.
func (ps *Problems) Add(key, reason string, args ...any) {
	*ps = append(*ps, problem{key, fmt.Errorf(reason, args...)})
}

// Err is a [fault.ErrInvalidConfig] that reports every problem in one line, or nil when there is none.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	all := make(fault.Joined, len(ps))
	for i, p := range ps {
		all[i] = fmt.Errorf("%s: %w", p.where, p.reason)
	}
	return fmt.Errorf("%w: %w", fault.ErrInvalidConfig, all)
}
