package drift

import (
	"cmp"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// normal returns cfg as the server writes it down, so far as that is another way to say the same.
func normal(cfg jetstream.StreamConfig) jetstream.StreamConfig {
	if p := cfg.Placement; p != nil && p.Cluster == "" && len(p.Tags) == 0 {
		cfg.Placement = nil
	}
	if r := cfg.RePublish; r != nil {
		own := *r
		own.Source = cmp.Or(own.Source, ">")
		cfg.RePublish = &own
	}
	if cfg.Mirror != nil {
		cfg.Mirror = normalSource(cfg.Mirror)
	}
	var sources []*jetstream.StreamSource
	for _, source := range cfg.Sources {
		sources = append(sources, normalSource(source))
	}
	slices.SortStableFunc(sources, func(a, b *jetstream.StreamSource) int { return cmp.Compare(sourceName(a), sourceName(b)) })
	cfg.Sources = sources
	return cfg
}

// normalSource returns a copy in which a domain is the prefix that upstream makes of it, and a time is
// the server's.
func normalSource(source *jetstream.StreamSource) *jetstream.StreamSource {
	if source == nil {
		return &jetstream.StreamSource{} // which the server refuses
	}
	own := *source
	if own.Domain != "" && own.External == nil { // with both, upstream refuses it
		own.External, own.Domain = &jetstream.ExternalStream{APIPrefix: "$JS." + own.Domain + ".API"}, ""
	}
	if own.OptStartTime != nil {
		at := own.OptStartTime.UTC()
		own.OptStartTime = &at
	}
	return &own
}

// sourceName returns what tells a source from the others, as the server has it.
func sourceName(source *jetstream.StreamSource) string {
	parts := []string{source.Name, source.FilterSubject}
	for _, t := range source.SubjectTransforms {
		parts = append(parts, t.Source, t.Destination)
	}
	if source.External != nil {
		parts = append(parts, source.External.APIPrefix)
	}
	return strings.Join(parts, " ")
}

// inherits tells whether a stream mirrors one that its server knows, which decides on MirrorDirect.
func inherits(cfg *jetstream.StreamConfig) bool {
	return cfg.Mirror != nil && cfg.Mirror.External == nil
}
