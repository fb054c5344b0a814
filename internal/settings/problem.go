package settings

import (
	"strings"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Where  string // "consul.address", "nats.yaml:7: timeout" or "ISA_CLOUD_NATS_TIMEOUT"
	Reason error
}

// Problems is all that is wrong.
type Problems []Problem

// Err is a [fault.ErrInvalidConfig] that reports every problem in one line, or nil when there is none.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	return configError(ps)
}

type configError Problems

func (e configError) Error() string {
	texts := make([]string, len(e))
	for i, p := range e {
		texts[i] = p.Where + ": " + p.Reason.Error()
	}
	return fault.ErrInvalidConfig.Error() + ": " + strings.Join(texts, "; ")
}

func (e configError) Unwrap() []error {
	errs := []error{fault.ErrInvalidConfig}
	for _, p := range e {
		errs = append(errs, p.Reason)
	}
	return errs
}
