package drift

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
)

// A field that upstream adds must get a rule.
func TestEveryFieldHasARule(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		config reflect.Type
		rules  map[string]rule
	}{
		{reflect.TypeFor[jetstream.StreamConfig](), streamRules},
		{reflect.TypeFor[jetstream.ConsumerConfig](), consumerRules},
	} {
		var fields []string
		for field := range test.config.Fields() {
			fields = append(fields, field.Name)
		}
		assert.ElementsMatch(t, fields, slices.Collect(maps.Keys(test.rules)), test.config)
	}
}
