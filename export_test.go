package nats

import (
	"maps"
	"slices"
)

// What black-box tests may see of the inside.
var SubjectFault = subjectFault

// Backoff is the pause before each round of reconnects.
var Backoff = backoff

func StreamRuleFields() []string   { return slices.Collect(maps.Keys(streamRules)) }
func ConsumerRuleFields() []string { return slices.Collect(maps.Keys(consumerRules)) }
func KeyValueRuleFields() []string { return slices.Collect(maps.Keys(keyValueRules)) }
