package consul_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consul"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// What is dialled for a query ends with it, not when the system gives up: with the largest timeout it
// would outlive the package's tests.
func TestDialEndsWithItsQuery(t *testing.T) {
	t.Parallel()
	dead := strings.TrimPrefix(natstest.DeadHost(t), "nats://")
	r, err := consul.New(consul.Config{Address: dead, Timeout: math.MaxInt64}, "nats", 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Resolve(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a dead agent: %v", err)
	}
}
