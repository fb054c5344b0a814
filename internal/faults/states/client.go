package states

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// long is longer than any context of a call.
const long = time.Minute

func ignore(*nats.Message) error { return nil }

func event(subject string) *nats.Message { return &nats.Message{Subject: subject, Data: []byte("x")} }

// last reads a sequence to its end and returns its error.
func last[T any](seq func(yield func(T, error) bool)) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

// together calls f n times at once and returns an error, if there is one.
func together(n int, f func() error) error {
	errs := make(chan error, n)
	for range n {
		go func() { errs <- f() }()
	}
	var failed error
	for range n {
		if err := <-errs; err != nil {
			failed = err
		}
	}
	return failed
}

// ended gives the error of subscribing and takes the subscription back.
func ended(sub *nats.Subscription, err error) error {
	if err == nil {
		err = sub.Unsubscribe()
	}
	return err
}

var clientCalls = []Call{
	{Name: "Client.IsConnected", Do: func(_ context.Context, s *Scene) error { s.Client.IsConnected(); return nil }},
	{Name: "Client.Stats", Do: func(_ context.Context, s *Scene) error { s.Client.Stats(); return nil }},
	{Name: "Client.Config", Do: func(_ context.Context, s *Scene) error { s.Client.Config(); return nil }},
	{Name: "Client.String", Do: func(_ context.Context, s *Scene) error { _ = s.Client.String(); return nil }},
	{Name: "Client.Conn", Do: func(_ context.Context, s *Scene) error { s.Client.Conn(); return nil }},
	{Name: "Client.Consumptions", Do: func(_ context.Context, s *Scene) error { _ = slices.Collect(s.Client.Consumptions()); return nil }},
	{Name: "Client.TLSConnectionState", Do: func(_ context.Context, s *Scene) error { _, _ = s.Client.TLSConnectionState(); return nil }},
	{Name: "Client.JetStream", Do: func(_ context.Context, s *Scene) error { s.Client.JetStream(); return nil }},
	{Name: "fmt.Sprintf(%+v, Client)", Do: func(_ context.Context, s *Scene) error { _ = fmt.Sprintf("%+v %#v", s.Client, s.Client); return nil }},
	{Name: "Client.Ping", Kind: Asks, Do: func(ctx context.Context, s *Scene) error { return s.Client.Ping(ctx) }},
	{Name: "Client.Flush", Kind: Asks, Do: func(ctx context.Context, s *Scene) error { return s.Client.Flush(ctx) }},
	{Name: "Client.Health", Kind: Tells, Do: func(ctx context.Context, s *Scene) error { return s.state.health(s.Client.Health(ctx)) }},

	{Name: "Client.Publish", Kind: Sends, Do: func(ctx context.Context, s *Scene) error { return s.Client.Publish(ctx, "event", []byte("x")) }},
	{Name: "Client.PublishMsg", Kind: Sends, Do: func(ctx context.Context, s *Scene) error { return s.Client.PublishMsg(ctx, event("event")) }},
	{Name: "Client.PublishJSON", Kind: Sends, Do: func(ctx context.Context, s *Scene) error { return s.Client.PublishJSON(ctx, "event", 1) }},
	{Name: "Client.PublishWithReply", Kind: Sends, Do: func(ctx context.Context, s *Scene) error {
		return s.Client.PublishWithReply(ctx, "event", "answers", nil)
	}},
	{Name: "Client.Request", Kind: Asks, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.Request(ctx, "echo", []byte("x"), long)
		return err
	}},
	{Name: "Client.Request(timeout)", Kind: Asks, Do: func(_ context.Context, s *Scene) error {
		_, err := s.Client.Request(context.Background(), "echo", []byte("x"), s.state.patience())
		return err
	}},
	{Name: "Client.RequestMsg", Kind: Asks, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.RequestMsg(ctx, event("echo"), long)
		return err
	}},

	{Name: "Client.Subscribe", Kind: Opens, Do: func(ctx context.Context, s *Scene) error {
		return ended(s.Client.Subscribe(ctx, "event", ignore))
	}},
	{Name: "Client.QueueSubscribe", Kind: Opens, Do: func(ctx context.Context, s *Scene) error {
		return ended(s.Client.QueueSubscribe(ctx, "event", "workers", ignore))
	}},
	{Name: "Client.HandleRequests", Kind: Opens, Do: func(ctx context.Context, s *Scene) error {
		return ended(s.Client.HandleRequests(ctx, "event", "workers", func(*nats.Message) ([]byte, error) { return nil, nil }))
	}},
	{Name: "Client.RequestMany", Kind: Waits, Do: func(ctx context.Context, s *Scene) error {
		return last(s.Client.RequestMany(ctx, "nothing", nil))
	}},
	{Name: "Client.AddService", Kind: Opens, Do: func(ctx context.Context, s *Scene) error {
		service, err := s.Client.AddService(ctx, nats.ServiceConfig{Name: "states", Version: "1.0.0"})
		if err == nil {
			err = service.Stop(ctx)
		}
		return err
	}},
	{Name: "Client.Messages", Kind: Waits, Do: func(ctx context.Context, s *Scene) error { return last(s.Client.Messages(ctx, "nothing")) }},
	{Name: "Subscription.Stats", Handle: true, Do: func(_ context.Context, s *Scene) error { s.subs[0].Stats(); return nil }},
	{Name: "Subscription.Err", Handle: true, Do: func(_ context.Context, s *Scene) error { _ = s.subs[0].Err(); return nil }},
	{Name: "Subscription.Unsubscribe", Kind: Ends, Handle: true, Do: func(_ context.Context, s *Scene) error { return s.subs[1].Unsubscribe() }},
	{Name: "Subscription.Drain", Kind: Ends, Handle: true, Do: func(ctx context.Context, s *Scene) error { return s.subs[2].Drain(ctx) }},
	{Name: "Message.Respond", Kind: Sends, Handle: true, Do: func(_ context.Context, s *Scene) error { return s.question.Respond(nil) }},
}

var streamCalls = []Call{
	{Name: "Client.CreateStream", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.CreateStream(ctx, &jetstream.StreamConfig{Name: "NEW", Subjects: []string{"new.>"}, Storage: jetstream.MemoryStorage})
		return err
	}},
	{Name: "Client.EnsureStream", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "ENSURED", Subjects: []string{"ensured.>"}, Storage: jetstream.MemoryStorage})
		return err
	}},
	{Name: "Client.UpdateStream", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.UpdateStream(ctx, &jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other.>"}, Storage: jetstream.MemoryStorage, MaxMsgs: 1000})
		return err
	}},
	{Name: "Client.GetStream", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.GetStream(ctx, "ORDERS")
		return err
	}},
	{Name: "Client.GetStreamInfo", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.GetStreamInfo(ctx, "ORDERS")
		return err
	}},
	{Name: "Client.PurgeStream", Kind: Stores, Do: func(ctx context.Context, s *Scene) error { return s.Client.PurgeStream(ctx, "PURGED") }},
	{Name: "Client.DeleteStream", Kind: Stores, Do: func(ctx context.Context, s *Scene) error { return s.Client.DeleteStream(ctx, "OLD") }},
	{Name: "Client.Streams", Kind: Stores, Do: func(ctx context.Context, s *Scene) error { return last(s.Client.Streams(ctx)) }},

	{Name: "Client.PublishToStream", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.PublishToStream(ctx, "other.x", nil)
		return err
	}},
	{Name: "Client.PublishToStream x 50", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		return together(50, func() error {
			_, err := s.Client.PublishToStream(ctx, "other.x", nil)
			return err
		})
	}},
	{Name: "Client.PublishMsgToStream", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.PublishMsgToStream(ctx, event("other.x"))
		return err
	}},
	{Name: "Client.PublishJSONToStream", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.PublishJSONToStream(ctx, "other.x", 1)
		return err
	}},
	{Name: "Client.PublishAsync", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		future, err := s.Client.PublishAsync(ctx, event("other.x"))
		if err != nil {
			return err
		}
		select {
		case <-future.Ok():
			return nil
		case err := <-future.Err():
			return err
		case <-ctx.Done(): // the future goes on, with its own patience
			return nats.ErrTimeout
		}
	}},
	{Name: "Client.PublishBatch", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.PublishBatch(ctx, []*nats.Message{event("other.x"), event("other.x")})
		return err
	}},
	{Name: "Client.PublishAtomic", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.PublishAtomic(ctx, []*nats.Message{event("atomic.x"), event("atomic.x")})
		return err
	}},
	{Name: "Client.PublishSeq", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		return last(s.Client.PublishSeq(ctx, slices.Values([]*nats.Message{event("other.x"), event("other.x")})))
	}},
	{Name: "Client.GetMessage", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.GetMessage(ctx, "ORDERS", 1)
		return err
	}},
	{Name: "Client.GetLastMessages", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		return last(s.Client.GetLastMessages(ctx, "ORDERS", "orders.>"))
	}},
	{Name: "Client.ReadStream", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		return last(s.Client.ReadStream(ctx, "ORDERS"))
	}},
	{Name: "Client.ReadStream(follow)", Kind: Waits, Do: func(ctx context.Context, s *Scene) error {
		return last(s.Client.ReadStream(ctx, "ORDERS", nats.WithReadFollow()))
	}},
	{Name: "Client.ReplayDeadLetters", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.ReplayDeadLetters(ctx, "ORDERS")
		return err
	}},
}

var consumerCalls = []Call{
	{Name: "Client.CreateConsumer", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "new"})
		return err
	}},
	{Name: "Client.EnsureConsumer", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.EnsureConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "ensured"})
		return err
	}},
	{Name: "Client.GetConsumer", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.GetConsumer(ctx, "ORDERS", "idle")
		return err
	}},
	{Name: "Client.GetConsumerInfo", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.GetConsumerInfo(ctx, "ORDERS", "idle")
		return err
	}},
	{Name: "Client.PauseConsumer", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		return s.Client.PauseConsumer(ctx, "ORDERS", "paused", time.Now().Add(long))
	}},
	{Name: "Client.ResumeConsumer", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		return s.Client.ResumeConsumer(ctx, "ORDERS", "idle")
	}},
	{Name: "Client.DeleteConsumer", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		return s.Client.DeleteConsumer(ctx, "ORDERS", "old")
	}},
	{Name: "Client.PullMessages", Kind: Waits, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.PullMessages(ctx, "ORDERS", "pulled", 1)
		return err
	}},
	{Name: "Client.PullMessages(empty)", Kind: Waits, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.PullMessages(ctx, "EMPTY", "empty", 1)
		return err
	}},
	{Name: "Client.Consume", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		consumption, err := s.Client.Consume(ctx, "ORDERS", "consumed", ignore)
		if err == nil {
			err = consumption.Stop(ctx)
		}
		return err
	}},
	{Name: "Consumption.Stats", Handle: true, Do: func(_ context.Context, s *Scene) error { s.consumptions[0].Stats(); return nil }},
	{Name: "Consumption.Healthy", Handle: true, Do: func(_ context.Context, s *Scene) error { s.consumptions[0].Healthy(); return nil }},
	{Name: "Consumption.Lag", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.consumptions[0].Lag(ctx)
		return err
	}},
	{Name: "Consumption.Stop", Kind: Ends, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		return s.consumptions[1].Stop(ctx)
	}},
}
