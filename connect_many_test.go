package nats_test

import (
	"context"
	"net"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Servers that are far away are tried together, and what is healthy is soon connected to, however many
// there are; raw nats.go takes 0.3 s for one.
func TestManyServersFarAway(t *testing.T) {
	t.Parallel()
	server := natstest.RunServer(t)
	var urls []string
	for range 40 {
		proxy := natstest.NewProxy(t, server.URL())
		proxy.Delay(100 * time.Millisecond)
		urls = append(urls, proxy.URL())
	}
	begin := time.Now()
	client, err := nats.NewClient(&nats.Config{URLs: urls})
	require.NoError(t, err)
	// A second, and what a busy machine may add; asked one after another they took 10.
	assert.Less(t, since(begin), 4*time.Second)
	require.NoError(t, client.Close())
}

// hanging is a discovery, or a dialer, that never answers, whatever its context says.
type hanging struct{ end chan struct{} }

func (h hanging) Resolve(context.Context) ([]string, error) { <-h.end; return nil, nil }

func (h hanging) Watch(context.Context, func([]string)) error { <-h.end; return nil }

func (h hanging) Dial(string, string) (net.Conn, error) { <-h.end; return nil, net.ErrClosed }

func TestBackgroundConnectReturnsAtOnce(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	defer close(end)
	s := natstest.RunServer(t)
	hole := natstest.NewProxy(t, s.URL())
	hole.BlackHole()
	dead, silent := natstest.DeadHost(t), natstest.SilentServer(t, "")
	for name, c := range map[string]struct {
		urls   []string
		change func(*nats.Config)
		opts   []nats.Option
	}{
		"refused":           {urls: []string{"nats://127.0.0.1:1"}},
		"dead host":         {urls: []string{dead}},
		"silent":            {urls: []string{silent}},
		"silent after INFO": {urls: []string{natstest.SilentServer(t, "INFO {\"max_payload\":1048576}\r\n")}},
		"black hole":        {urls: []string{hole.URL()}},
		"many dead hosts":   {urls: []string{dead, silent, hole.URL(), "nats://127.0.0.1:1", dead, silent}},
		"no such name":      {urls: []string{"nats://no.such.host.invalid:4222"}},
		"discovery hangs":   {urls: []string{dead}, opts: []nats.Option{nats.WithResolver(hanging{end})}},
		"Consul is silent":  {urls: []string{dead}, change: func(c *nats.Config) { c.UseConsul, c.Consul.Address = true, silent[len("nats://"):] }},
		"Consul is dead":    {urls: []string{dead}, change: func(c *nats.Config) { c.UseConsul, c.Consul.Address = true, dead[len("nats://"):] }},
		"a dialer hangs":    {urls: []string{dead}, opts: []nats.Option{nats.WithNATSOptions(natsgo.SetCustomDialer(hanging{end}))}},
		"it answers":        {urls: []string{s.URL()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := &nats.Config{URLs: c.urls}
			if c.change != nil {
				c.change(cfg)
			}
			begin := time.Now()
			client, err := nats.NewClient(cfg, append(c.opts, nats.WithBackgroundConnect())...)
			took := since(begin)
			require.NoError(t, err)
			// 100 ms are promised; the rest is for a busy machine.
			assert.Less(t, took, 500*time.Millisecond)
			begin = time.Now()
			require.NoError(t, client.Publish(context.Background(), "x", nil))
			client.Stats()
			assert.Less(t, since(begin), 500*time.Millisecond)
			begin = time.Now()
			ctx := within(t, 200*time.Millisecond)
			_ = client.Shutdown(ctx) // with what it says is unsent
			assert.Less(t, since(begin), 2*time.Second)
		})
	}
}
