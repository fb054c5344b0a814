package nats_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// Whatever a handler does, its caller is answered at once; what only concerns the service stays with it.
func ExampleServiceError() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()
	_, err := client.HandleRequests(ctx, "price.*", "prices", func(msg *nats.Message) ([]byte, error) {
		switch string(msg.Data) {
		case "apple":
			return []byte("30 cents"), nil
		case "unicorn":
			return nil, &nats.ServiceError{Code: 404, Description: "no such product"}
		}
		return nil, errors.New("the database is at db.internal:5432")
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, product := range []string{"apple", "unicorn", "pear"} {
		answer, err := client.Request(ctx, "price.get", []byte(product), 5*time.Second)
		if err != nil {
			fmt.Println(err, errors.Is(err, &nats.ServiceError{Code: 404}))
			continue
		}
		fmt.Printf("%s\n", answer.Data)
	}
	// Output:
	// 30 cents
	// request "price.get": service error 404: no such product true
	// request "price.get": service error 500: Internal Server Error false
}

func ExampleJSONRequest() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()
	type numbers struct{ A, B int }
	_, err := client.HandleRequests(ctx, "add", "q", nats.JSONRequest(func(_ context.Context, n numbers) (int, error) {
		return n.A + n.B, nil
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(nats.RequestJSON[int](ctx, client, "add", numbers{2, 3}, 5*time.Second))
	_, err = nats.RequestJSON[int](ctx, client, "add", "text", 5*time.Second)
	fmt.Println(err)
	// Output:
	// 5 <nil>
	// request "add": service error 400: the request does not decode
}

func ExampleClient_RequestMany() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()
	_, err := client.Subscribe(ctx, "count", func(msg *nats.Message) error {
		for i := range 3 {
			if err := msg.Respond(fmt.Append(nil, i)); err != nil {
				return err
			}
		}
		return msg.Respond(nil)
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	isEnd := func(msg *nats.Message) bool { return len(msg.Data) == 0 }
	for msg, err := range client.RequestMany(ctx, "count", nil, nats.WithSentinel(isEnd)) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s\n", msg.Data)
	}
	// Output:
	// 0
	// 1
	// 2
}

// The service is what `nats micro ls` shows.
func ExampleClient_AddService() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()
	greet := func(msg *nats.Message) ([]byte, error) { return append([]byte("Hello, "), msg.Data...), nil }
	service, err := client.AddService(ctx, nats.ServiceConfig{Name: "greeter", Version: "1.0.0"},
		nats.GroupEndpoints("greeter", nats.Endpoint{Name: "greet", Handler: greet})...)
	if err != nil {
		fmt.Println(err)
		return
	}
	answer, err := client.Request(ctx, "greeter.greet", []byte("Ada"), 5*time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", answer.Data)
	found, err := client.Request(ctx, "$SRV.PING.greeter", nil, 5*time.Second)
	fmt.Println(found != nil, err)
	if err := service.Stop(ctx); err != nil { // what was received is handled
		fmt.Println(err)
		return
	}
	fmt.Println(service.Stats().Endpoints[0].NumRequests)
	// Output:
	// Hello, Ada
	// true <nil>
	// 1
}
