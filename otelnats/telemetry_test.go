package otelnats_test

import (
	"context"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/otelnats"
)

const alone = "OTELNATS_ALONE"

// Without a provider a message costs what it does without this package, and a provider that comes later is used. What the
// process has set is the process's, so this one runs in another.
func TestProcess(t *testing.T) {
	if os.Getenv(alone) == "" {
		t.Parallel()
		test := exec.Command(os.Args[0], "-test.run", "^TestProcess$", "-test.v")
		test.Env = append(os.Environ(), alone+"=1")
		output, err := test.CombinedOutput()
		require.NoError(t, err, "%s", output)
		t.Logf("%s", output)
		return
	}
	server := natstest.RunServer(t)
	plain, client := natstest.Connect(t, server, nil), natstest.Connect(t, server, nil, otelnats.New())
	ctx := within(t)
	handled := make(chan struct{}, 1)
	for subject, c := range map[string]*nats.Client{"plain": plain, "client": client} {
		_, err := c.Subscribe(ctx, subject, func(*nats.Message) error { handled <- struct{}{}; return nil })
		require.NoError(t, err)
		_, err = c.HandleRequests(ctx, "ask."+subject, "", func(*nats.Message) ([]byte, error) { return nil, nil })
		require.NoError(t, err)
	}
	allocs := func(c *nats.Client, subject string) float64 {
		return testing.AllocsPerRun(50, func() {
			require.NoError(t, c.Publish(ctx, subject, nil))
			<-handled
			_, err := c.Request(ctx, "ask."+subject, nil, 0)
			require.NoError(t, err)
		})
	}
	without, with := math.Inf(1), math.Inf(1)
	for round := 0; round < 5 || with > without && round < 50; round++ { // the server of the same process allocates, too
		without, with = min(without, allocs(plain, "plain")), min(with, allocs(client, "client"))
	}
	t.Logf("allocations of a publish and a request, both handled: %v, with a client that nobody observes %v", without, with)
	assert.LessOrEqual(t, with, without)

	spans := tracetest.NewInMemoryExporter()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	require.NoError(t, client.Publish(ctx, "client", nil))
	<-handled
	eventually(t, func() bool { return len(spans.GetSpans()) == 2 })
	assert.Equal(t, spans.GetSpans()[0].SpanContext.TraceID(), spans.GetSpans()[1].SpanContext.TraceID())
}

// bad is a propagator, a span processor and an exporter that does what its function does.
type bad func()

func (b bad) Inject(context.Context, propagation.TextMapCarrier) { b() }

func (b bad) Extract(ctx context.Context, _ propagation.TextMapCarrier) context.Context {
	b()
	return ctx
}
func (b bad) Fields() []string { return []string{"bad"} }

func (b bad) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { b(); return nil }

func (b bad) Shutdown(context.Context) error { return nil }

// What panics or blocks fails no call, and holds up none but the first.
func TestBadPropagatorsAndExporters(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]func(bad) otelnats.Option{
		"propagator": func(b bad) otelnats.Option { return otelnats.WithPropagators(b) },
		"exporter": func(b bad) otelnats.Option {
			return otelnats.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(b)))
		},
	} {
		for kind, f := range map[string]func(*testing.T) bad{
			"panics": func(*testing.T) bad { return func() { panic("bad") } },
			"blocks": func(t *testing.T) bad {
				over := make(chan struct{})
				t.Cleanup(func() { close(over) })
				return func() { <-over }
			},
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				s := observed(t, given(f(t)))
				ctx := s.orders(t)
				_, err := s.HandleRequests(ctx, "ask", "", func(*nats.Message) ([]byte, error) { return nil, nil })
				require.NoError(t, err)
				begun := time.Now()
				for range 200 {
					require.NoError(t, s.Publish(ctx, "a", nil))
					_, err := s.Request(ctx, "ask", nil, 0)
					require.NoError(t, err)
				}
				_, err = s.PublishBatch(ctx, []*nats.Message{{Subject: "orders.1"}})
				require.NoError(t, err)
				assert.Less(t, time.Since(begun), 30*time.Second, "401 calls of which each would wait 200 ms")
			})
		}
	}
}

// Room that there is for a message is there for it: what would not fit is left out.
func TestHeadersThatDoNotFit(t *testing.T) {
	t.Parallel()
	s := observed(t)
	ctx := s.orders(t)
	most := int(s.Conn().MaxPayload())
	require.NoError(t, s.Publish(ctx, "a", make([]byte, most)))
	_, err := s.Request(ctx, "a", make([]byte, most), 0)
	require.ErrorIs(t, err, nats.ErrNoResponders)
	require.ErrorIs(t, s.Publish(ctx, "a", make([]byte, most+1)), nats.ErrPayloadTooLarge)
	for _, span := range s.take(t, 3)[2:] {
		assert.Equal(t, "invalid_argument", attrs(span)["error.type"])
	}
	_, err = s.PublishToStream(ctx, "orders.1", make([]byte, most-100)) // with its ID
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(s.take(t, 1)[0].Name, "send"))
}
