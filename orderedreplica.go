package nats

import (
	"context"
	"encoding/json"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// How a stream's replicas are asked.
const (
	replicaAttempt = 250 * time.Millisecond
	replicaSpell   = 2 * time.Second // since an attempt to create a consumer, before the next
)

// nextOfReplica asks for the next message without a consumer. To create one takes a leader of the
// whole cluster, for which an election can last longer than the stream's own, and which a cluster
// without a majority has not; any replica of the stream answers this question (ADR-31). It returns
// nil when there is no such message, or no answer.
func (r *orderedReader) nextOfReplica(ctx context.Context) (*natsgo.Msg, *natsgo.MsgMetadata) {
	if !r.replicas || r.whole || r.last == 0 || time.Since(r.tried) > replicaSpell {
		return nil, nil
	}
	body, err := json.Marshal(wire.Get{Sequence: r.last + 1, NextFor: r.config.FilterSubject})
	if err != nil {
		return nil, nil
	}
	question := &natsgo.Msg{Subject: r.client.api.Subject("DIRECT.GET." + r.stream), Data: body}
	m, err := r.client.conn.Exchange(ctx, question, replicaAttempt)
	if err != nil {
		return nil, nil
	}
	stored, err := wire.ParseDirect(m)
	if err != nil || stored.Sequence <= r.last {
		return nil, nil
	}
	r.last = stored.Sequence
	m.Subject = stored.Subject
	if r.config.HeadersOnly {
		m.Data = nil
	}
	return m, &natsgo.MsgMetadata{
		Sequence: natsgo.SequencePair{Stream: stored.Sequence}, Timestamp: stored.Time, Stream: r.stream,
	}
}
