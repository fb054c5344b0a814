package natstest_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A leaf's JetStream is there for the clients of its hub at once, and again when either was away.
func TestRunLeaf(t *testing.T) {
	t.Parallel()
	for name, hub := range map[string]func(t *testing.T) *natstest.Server{
		"plain": func(t *testing.T) *natstest.Server { return natstest.RunServer(t) },
		"a domain, a user and TLS": func(t *testing.T) *natstest.Server {
			return natstest.RunServer(t, natstest.WithUser("u", "secret"), natstest.WithTLS(),
				natstest.WithConfig(func(o *server.Options) { o.JetStreamDomain = "hub" }))
		},
		"a token":        func(t *testing.T) *natstest.Server { return natstest.RunServer(t, natstest.WithToken("secret")) },
		"of a cluster":   func(t *testing.T) *natstest.Server { return natstest.RunCluster(t, 2).Servers()[1] },
		"without stream": func(t *testing.T) *natstest.Server { return natstest.RunServer(t, natstest.WithoutJetStream()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hub := hub(t)
			leaf := natstest.RunLeaf(t, hub, "leaf")
			far := natstest.Connect(t, hub, func(c *nats.Config) { c.JetStreamDomain = "leaf" })
			ctx := t.Context()
			if _, err := far.JetStream().CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"S.>"}}); err != nil {
				t.Fatalf("the leaf's JetStream, by its hub: %v", err)
			}
			near := natstest.Connect(t, leaf, nil)
			if _, err := near.GetStream(ctx, "S"); err != nil {
				t.Fatalf("the leaf's JetStream, at the leaf: %v", err)
			}
			leaf.Restart()
			eventually(t, "the leaf is back", func() bool { return reaches(ctx, far) })
			hub.Restart()
			eventually(t, "the hub is back", func() bool { return reaches(ctx, far) })
		})
	}
}

func reaches(ctx context.Context, client *nats.Client) bool {
	_, err := client.GetStreamInfo(ctx, "S")
	return err == nil
}
