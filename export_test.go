package nats

import (
	"maps"
	"slices"
)

// What black-box tests may see of the inside.
var SubjectFault = subjectFault

func StreamRuleFields() []string   { return slices.Collect(maps.Keys(streamRules)) }
func ConsumerRuleFields() []string { return slices.Collect(maps.Keys(consumerRules)) }
