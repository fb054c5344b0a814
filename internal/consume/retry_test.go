package consume

import (
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
)

// A night's outage makes no dead letters, and neither does an old backlog.
func TestWhenTriesAreSpent(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, test := range []struct {
		option, servers, deliveries int
		age, maxAge, delay          time.Duration
		ttl                         string
		spent                       bool
	}{
		{deliveries: 100, age: day - time.Minute},
		{deliveries: 24, age: 100 * day},
		{deliveries: 25, age: day, spent: true},
		{option: 3, deliveries: 2, age: 100 * day},
		{option: 3, deliveries: 3, spent: true},
		{option: -1, deliveries: 1000, age: 100 * day},
		{servers: 2, deliveries: 2, spent: true},
		{option: 5, servers: 2, deliveries: 2, spent: true},
		{option: -1, servers: 2, deliveries: 2, spent: true},
		{deliveries: 1, age: time.Minute, maxAge: time.Hour, delay: 58 * time.Minute},
		{deliveries: 1, age: time.Minute, maxAge: time.Hour, delay: time.Hour, spent: true},
		{option: -1, deliveries: 1, age: time.Minute, maxAge: time.Hour, delay: time.Hour},
		{deliveries: 1, ttl: "90s", delay: time.Minute},
		{deliveries: 1, ttl: "90s", delay: 2 * time.Minute, spent: true},
		{deliveries: 1, ttl: "90", delay: 2 * time.Minute, spent: true},
		{deliveries: 1, ttl: "never", delay: 2 * time.Minute},
	} {
		s := &Consumption{Options: Options{MaxDeliver: test.option}, rules: ackRules{ConsumerConfig: jetstream.ConsumerConfig{MaxDeliver: test.servers}}}
		s.age.is, s.age.asked = test.maxAge, time.Now()
		d := &Delivery{
			Deliveries: test.deliveries, stored: time.Now().Add(-test.age).UnixNano(),
			Msg: &natsgo.Msg{Header: natsgo.Header{"Nats-TTL": {test.ttl}}},
		}
		assert.Equal(t, test.spent, s.isSpent(d, s.maxDeliver(), test.delay), "%+v", test)
	}
}
