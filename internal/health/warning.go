package health

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/auth"
)

// tight is the part of a limit above which there is a warning.
const tight = 0.8

// ending warns of those that end soon, or have ended. Whose says whose they are.
func ending(whose string, certificates ...*x509.Certificate) (warnings []string) {
	for _, c := range certificates {
		if time.Until(c.NotAfter) < auth.EndsSoon {
			warnings = append(warnings, fmt.Sprintf("the %s's TLS certificate %q ends at %s", whose, c.Subject, c.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	return warnings
}

// Account warns of limits that are nearly reached. It may be nil, where it is not known.
func Account(info *jetstream.AccountInfo) (warnings []string) {
	if info == nil {
		return nil
	}
	warnings = tier("account", info.Tier)
	for _, name := range slices.Sorted(maps.Keys(info.Tiers)) {
		warnings = append(warnings, tier("account's tier "+name, info.Tiers[name])...)
	}
	return warnings
}

func tier(whose string, t jetstream.Tier) (warnings []string) {
	for _, one := range []struct {
		what        string
		used, limit float64
	}{
		{"memory", float64(max(t.Memory, t.ReservedMemory)), float64(t.Limits.MaxMemory)},
		{"storage", float64(max(t.Store, t.ReservedStore)), float64(t.Limits.MaxStore)},
		{"streams", float64(t.Streams), float64(t.Limits.MaxStreams)},
		{"consumers", float64(t.Consumers), float64(t.Limits.MaxConsumers)},
	} {
		if one.limit > 0 && one.used > tight*one.limit {
			warnings = append(warnings, fmt.Sprintf("the %s uses %.0f %% of its %s: %.0f of %.0f", whose, 100*one.used/one.limit, one.what, one.used, one.limit))
		}
	}
	return warnings
}
