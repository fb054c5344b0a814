package ordered

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
	replicaSpell   = 2 * time.Second // since a consumer was asked for in vain, before it is again
)

// nextOfReplica asks for the next message without a consumer. To make one takes a leader of the whole cluster,
// for which an election can last longer than the stream's own, and which a cluster without a majority has not;
// any replica of the stream answers this question (ADR-31). It returns nil when there is no such message, or
// no answer.
func (r *Reader) nextOfReplica(ctx context.Context) (m *natsgo.Msg, d wire.Delivery) {
	if !r.o.Replicas || r.whole || r.last == 0 || r.failures == 0 || time.Since(r.tried) > replicaSpell {
		return nil, d
	}
	body, err := json.Marshal(wire.Get{Sequence: r.last + 1, NextFor: r.o.Config.FilterSubject})
	if err != nil {
		return nil, d
	}
	_, trip := r.conn.Peer()
	m, err = r.conn.Exchange(ctx, &natsgo.Msg{Subject: r.api.Subject("DIRECT.GET." + r.o.Stream), Data: body}, replicaAttempt+trip)
	if err != nil {
		return nil, d
	}
	stored, err := wire.ParseDirect(m)
	if err != nil || stored.Sequence <= r.last {
		return nil, d
	}
	r.last = stored.Sequence
	m.Subject = stored.Subject
	if r.o.Config.HeadersOnly {
		m.Data = nil
	}
	return m, wire.Delivery{Sequence: stored.Sequence, Stored: stored.Time.UnixNano()}
}
