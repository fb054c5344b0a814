package otelnats

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// asking bounds how long a collection waits for servers.
const asking = time.Second

// consumerGauges are what the server says of the consumers of Consumptions.
type consumerGauges struct{ pending, ackPending, redelivered, lag metric.Int64ObservableGauge }

func (t *telemetry) consumerGauges() (g consumerGauges, all []metric.Observable) {
	gauge := func(name, text string) metric.Int64ObservableGauge {
		inst, err := t.meter.Int64ObservableGauge("nats.client.consumption."+name, metric.WithUnit("{message}"), metric.WithDescription(text))
		handle(err)
		all = append(all, inst)
		return inst
	}
	g = consumerGauges{
		pending:     gauge("pending", "Messages of the consumer that were not delivered yet."),
		ackPending:  gauge("ack_pending", "Messages of the consumer that were delivered and wait for their acknowledgement."),
		redelivered: gauge("redelivered", "Messages of the consumer that were delivered more than once and wait for their acknowledgement."),
		lag:         gauge("lag", "Messages of the consumer that are not done, those in its retry stream included."),
	}
	return g, all
}

// observe asks about all consumers at once. What is not answered in time is not known, and not said.
func (g consumerGauges) observe(ctx context.Context, o metric.Observer, of []*nats.Client) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	type answer struct {
		gauge metric.Int64ObservableGauge
		value int64
		attrs metric.MeasurementOption
	}
	var mu sync.Mutex
	var answers []answer
	var asked sync.WaitGroup
	for _, client := range of {
		if !client.IsConnected() {
			continue
		}
		for c := range client.Consumptions() {
			attrs := metric.WithAttributes(attribute.String("messaging.nats.stream", c.Stream()), semconv.MessagingConsumerGroupName(c.Consumer()))
			asked.Go(func() {
				info, err := client.GetConsumerInfo(ctx, c.Stream(), c.Consumer())
				lag, unknown := c.Lag(ctx)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					answers = append(answers,
						answer{g.pending, int64(info.NumPending), attrs},
						answer{g.ackPending, int64(info.NumAckPending), attrs},
						answer{g.redelivered, int64(info.NumRedelivered), attrs})
				}
				if unknown == nil {
					answers = append(answers, answer{g.lag, int64(lag), attrs})
				}
			})
		}
	}
	asked.Wait()
	for _, a := range answers {
		o.ObserveInt64(a.gauge, a.value, a.attrs)
	}
}
