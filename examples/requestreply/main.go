// Requestreply shows requests and their answers: a service that several instances share, an answer
// that is an error, and a request that nobody serves.
//
//	go run ./examples/requestreply
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// service keeps runs on a shared server apart.
var service = "example-" + strings.ToLower(rand.Text()[:6]) + ".price"

type (
	priceRequest struct {
		Product  string `json:"product"`
		Quantity int    `json:"quantity"`
	}
	priceResponse struct {
		Cents int `json:"cents"`
	}
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "requestreply:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	urls, stopServer, err := local.Server()
	if err != nil {
		return err
	}
	defer stopServer()
	client, err := nats.NewClientContext(ctx, &nats.Config{URLs: urls, ClusterID: "isa-cloud-cluster"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	// Instances of a service share a queue group, so that one of them answers.
	for range 2 {
		if _, err := client.HandleRequests(ctx, service, "price-service", nats.JSONRequest(answer)); err != nil {
			return err
		}
	}

	for _, product := range []string{"apple", "unicorn"} {
		cents, err := price(ctx, client, service, product)
		if err != nil {
			fmt.Printf("%-8s no price: %v\n", product, err)
			continue
		}
		fmt.Printf("%-8s %d cents\n", product, cents)
	}

	// Where nobody listens the answer is an error at once, and not after the timeout.
	_, err = price(ctx, client, service+".nobody", "apple")
	if !errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("a request to nobody returned %v", err) //nolint:errorlint // nil is a fault, too
	}
	fmt.Println("nobody   no price:", nats.ErrNoResponders)
	return nil
}

// answer is the service's side.
func answer(_ context.Context, request priceRequest) (priceResponse, error) {
	if request.Product != "apple" {
		return priceResponse{}, &nats.ServiceError{Code: 404, Description: "no such product: " + request.Product}
	}
	return priceResponse{Cents: 30 * request.Quantity}, nil
}

// price is the caller's side.
func price(ctx context.Context, client *nats.Client, subject, product string) (int, error) {
	response, err := nats.RequestJSON[priceResponse](ctx, client, subject, priceRequest{Product: product, Quantity: 5}, 2*time.Second)
	return response.Cents, err
}
