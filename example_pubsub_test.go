package nats_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// Subscribe returns when the server knows of the subscription, so what is published after it arrives; Drain returns when
// what has arrived is handled.
func ExampleClient_Subscribe() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	sub, err := client.Subscribe(ctx, "events.order.*", func(msg *nats.Message) error {
		fmt.Printf("%s: %s\n", msg.Subject, msg.Data)
		return nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, subject := range []string{"events.order.created", "events.user.created", "events.order.shipped"} {
		if err := client.Publish(ctx, subject, []byte("123")); err != nil {
			fmt.Println(err)
			return
		}
	}
	if err := errors.Join(client.Flush(ctx), sub.Drain(ctx)); err != nil {
		fmt.Println(err)
	}
	// Output:
	// events.order.created: 123
	// events.order.shipped: 123
}

// Each task goes to one member of the group.
func ExampleClient_QueueSubscribe() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	handled := make(chan string)
	for range 2 {
		_, err := client.QueueSubscribe(ctx, "work.tasks", "workers", func(msg *nats.Message) error {
			handled <- string(msg.Data)
			return nil
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	for range 3 {
		if err := client.Publish(ctx, "work.tasks", []byte("a task")); err != nil {
			fmt.Println(err)
			return
		}
	}
	for range 3 {
		fmt.Println("handled", <-handled)
	}
	// Output:
	// handled a task
	// handled a task
	// handled a task
}

// Messages is a subscription to range over. It ends with the loop.
func ExampleClient_Messages() {
	client, done := exampleClient()
	defer done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	go func() { // until somebody listens
		for ctx.Err() == nil {
			if _, err := client.Request(ctx, "events.started", []byte("hello"), 100*time.Millisecond); err == nil {
				return
			}
		}
	}()
	for msg, err := range client.Messages(ctx, "events.>") {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: %s\n", msg.Subject, msg.Data)
		if err := msg.Respond(nil); err != nil {
			fmt.Println(err)
		}
		break
	}
	// Output:
	// events.started: hello
}

// The errors of a request tell whether it may have been handled.
func ExampleClient_Request() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	ask := func() {
		response, err := client.Request(ctx, "service.ping", []byte("hello"), 5*time.Second)
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			fmt.Println("the service is not running")
		case nats.IsUncertain(err):
			fmt.Println("it may have been handled; ask before repeating")
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println(string(response.Data))
		}
	}
	ask()
	_, err := client.Subscribe(ctx, "service.ping", func(msg *nats.Message) error { return msg.Respond([]byte("pong")) })
	if err != nil {
		fmt.Println(err)
		return
	}
	ask()
	// Output:
	// the service is not running
	// pong
}

// A caller is answered whatever the handler does.
func ExampleClient_HandleRequests() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	type question struct{ ID int }
	type answer struct{ Name string }
	_, err := client.HandleRequests(ctx, "users.get", "users", nats.JSONRequest(func(_ context.Context, q question) (answer, error) {
		if q.ID != 1 {
			return answer{}, &nats.ServiceError{Code: 404, Description: "no such user"}
		}
		return answer{Name: "Ada"}, nil
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	for id := 1; id <= 2; id++ {
		user, err := nats.RequestJSON[answer](ctx, client, "users.get", question{ID: id}, 5*time.Second)
		var refused *nats.ServiceError
		if errors.As(err, &refused) {
			fmt.Println(refused.Code, refused.Description)
			continue
		}
		fmt.Println(user.Name, err)
	}
	// Output:
	// Ada <nil>
	// 404 no such user
}

// What Shutdown could not save is counted.
func ExampleClient_Shutdown() {
	client, done := exampleClient()
	defer done()

	begun := make(chan struct{})
	_, err := client.Subscribe(context.Background(), "slow", func(msg *nats.Message) error {
		close(begun)
		<-msg.Context().Done() // when the time of Shutdown is up
		return msg.Context().Err()
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := client.Publish(context.Background(), "slow", nil); err != nil {
		fmt.Println(err)
		return
	}
	<-begun

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	var left *nats.ShutdownError
	if err := client.Shutdown(ctx); errors.As(err, &left) {
		fmt.Printf("handlers that run: %d, bytes not sent: %d\n", left.Handlers, left.Bytes)
	}
	fmt.Println(errors.Is(client.Publish(context.Background(), "late", nil), nats.ErrClosed))
	// Output:
	// handlers that run: 1, bytes not sent: 0
	// true
}

// Validate finds every mistake at once, and sends nothing.
func ExampleConfig_Validate() {
	cfg := nats.DefaultConfig()
	cfg.URLs = []string{"http://localhost:4222"}
	cfg.Timeout = -time.Second
	cfg.Password = "secret"
	fmt.Println(cfg.Validate())
	// Output:
	// invalid configuration: urls[0]: must begin with nats://, tls://, ws:// or wss://, got "http://localhost:4222"; timeout: must not be negative, got -1s; password: needs username
}
