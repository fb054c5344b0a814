package nats_test

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// What upstream's buffers held when the connection broke is gone: upstream says nothing of it.
func TestOutageTellsTheBytesAtRisk(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	var events eventLog
	client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} }, nats.WithEventHandler(events.handle))
	ctx := context.Background()
	for range 10 {
		require.NoError(t, client.Publish(ctx, "x", make([]byte, 100)))
	}
	require.NoError(t, client.Flush(ctx))
	assert.Zero(t, client.Stats().Unconfirmed, "the server has confirmed everything")

	proxy.BlackHole()
	for range 7 {
		require.NoError(t, client.Publish(ctx, "x", make([]byte, 100)))
	}
	assert.EqualValues(t, 700, client.Stats().Unconfirmed)
	proxy.Cut()
	eventually(t, "the event", func() bool { return len(events.of(nats.EventDisconnected)) == 1 })
	assert.EqualValues(t, 700, events.of(nats.EventDisconnected)[0].Bytes)
	proxy.Restore()
	eventually(t, "reconnected", client.IsConnected)

	// On a healthy connection nobody has to flush.
	require.NoError(t, client.Publish(ctx, "x", make([]byte, 100)))
	eventually(t, "confirmed by itself", func() bool { return client.Stats().Unconfirmed == 0 })
}

func TestOutageWithoutPublishesRisksNothing(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var events eventLog
	client := connect(t, s, nil, nats.WithEventHandler(events.handle))
	_, err := client.Request(context.Background(), "nobody", make([]byte, 100), patience)
	require.ErrorIs(t, err, nats.ErrNoResponders)
	eventually(t, "confirmed by itself", func() bool { return client.Stats().Unconfirmed == 0 })
	s.Restart()
	eventually(t, "the event", func() bool { return len(events.of(nats.EventDisconnected)) == 1 })
	assert.Zero(t, events.of(nats.EventDisconnected)[0].Bytes)
}

// With publish_when_disconnected: fail, nothing waits and nothing is kept.
func TestFailWhenDisconnected(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL()) // it keeps its port, that of a stopped server may become another one's
	client := connect(t, s, func(c *nats.Config) { c.URLs, c.PublishWhenDisconnected = []string{proxy.URL()}, "fail" })
	ctx := context.Background()
	proxy.Cut()
	eventually(t, "disconnected", func() bool { return !client.IsConnected() })
	for name, call := range map[string]func() error{
		"publish": func() error { return client.Publish(ctx, "x", nil) },
		"publish with headers": func() error {
			return client.PublishMsg(ctx, &nats.Message{Subject: "x", Header: map[string][]string{"A": {"b"}}})
		},
		"request": func() error { _, err := client.Request(ctx, "x", nil, time.Minute); return err },
		"publish to a stream": func() error {
			_, err := client.PublishToStream(ctx, "x", nil)
			return err
		},
		"publish async": func() error {
			_, err := client.PublishAsync(ctx, &nats.Message{Subject: "x"})
			return err
		},
		"create a stream": func() error {
			_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S"})
			return err
		},
	} {
		eventually(t, name+" is refused within 1 ms, however busy the machine is", func() bool {
			begin := time.Now()
			err := call()
			took := since(begin)
			require.ErrorIs(t, err, nats.ErrNotConnected, name)
			return took < time.Millisecond
		})
	}
	assert.Zero(t, client.Stats().Buffered)
}

// Upstream tells nobody why a TLS handshake fails at a reconnect.
func TestTLSFailureOnReconnectIsTold(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	for _, a := range []authority{ca, other} {
		a.Issue(t, "server", nil)
		a.Issue(t, "client", nil)
	}
	s := natstest.RunServer(t, ca.demand(t))
	var events eventLog
	var log logBuffer
	client := connect(t, s, func(c *nats.Config) {
		c.TLSCA, c.TLSCert, c.TLSKey = ca.Path("ca.pem"), ca.Path("client.pem"), ca.Path("client-key.pem")
	}, nats.WithEventHandler(events.handle), nats.WithLogger(log.logger()))
	s.Restart(other.demand(t))
	var unknown x509.UnknownAuthorityError
	eventually(t, "the reason is told", func() bool {
		for _, e := range events.of(nats.EventReconnectFailed) {
			if errors.As(e.Err, &unknown) {
				return true
			}
		}
		return false
	})
	eventually(t, "the reason stands in Stats", func() bool {
		return errors.As(client.Stats().ConnectError, &unknown)
	})
	assert.Contains(t, strings.Join(client.Health(context.Background()).Problems, "\n"), unknown.Error())
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "cannot reconnect to NATS") })
	assert.Equal(t, 1, strings.Count(log.String(), "signed by unknown authority"), "once in an outage, not at every attempt")
	s.Restart(ca.demand(t))
	eventually(t, "reconnected", client.IsConnected)
	require.NoError(t, client.Stats().ConnectError)
}

// A secret that Kubernetes mounts changes by a symbolic link's turning to another directory.
func TestSecretsInKubernetesVolumes(t *testing.T) {
	t.Parallel()
	volume := t.TempDir()
	mount := func(version, content string) {
		require.NoError(t, os.Mkdir(filepath.Join(volume, version), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(volume, version, "password"), []byte(content), 0o600))
		require.NoError(t, os.Symlink(version, filepath.Join(volume, "..new")))
		require.NoError(t, os.Rename(filepath.Join(volume, "..new"), filepath.Join(volume, "..data")))
	}
	mount("v1", "canary-old")
	require.NoError(t, os.Symlink(filepath.Join("..data", "password"), filepath.Join(volume, "password")))
	password := "canary-old"
	s := authServer(t, func(o *server.Options) { o.Username, o.Password = "user", password })
	said := watchSecrets(t, "canary")
	client, err := said.connect(nats.Config{
		URLs: []string{s.URL()}, Username: "user", PasswordFile: filepath.Join(volume, "password"),
	})
	require.NoError(t, err)
	s.Stop()
	password = "canary-new"
	s.Restart()
	eventually(t, "the refusal is told", func() bool {
		for _, e := range said.events.of(nats.EventReconnectFailed) {
			if errors.Is(e.Err, nats.ErrAuthorization) {
				return true
			}
		}
		return false
	})
	mount("v2", "canary-new\n")
	eventually(t, "reconnected", client.IsConnected)
}
