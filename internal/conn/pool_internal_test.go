package conn

import (
	"fmt"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whom a round tries, in which order, by which name over TLS, and whether in the clear.
func TestOrderOfARound(t *testing.T) {
	t.Parallel()
	c := New(Options{NATS: &natsgo.Options{NoRandomize: true, MaxReconnect: 2}}, nil)
	t.Cleanup(c.cancel)
	pool, err := c.name([]string{"a", "tls://b:1", "ws://c", "wss://d", "e"})
	require.NoError(t, err)
	gossiped, err := parseAll([]string{"10.0.0.1", "tls://f", "wss://g", "d:443", "b:1"})
	require.NoError(t, err)
	pool = append(pool, gossiped...)
	round := func() (servers []string) {
		for _, s := range c.order(pool) {
			servers = append(servers, fmt.Sprintf("%s %s %t", s.url.Host, s.name, s.tls))
		}
		return servers
	}
	a, b, ws, wss, e, ip := "a:4222 a false", "b:1 b true", "c:80 c false", "d:443 d true", "e:4222 e false", "10.0.0.1:4222 10.0.0.1 false"
	f, g := "f:4222 f true", "g:443 g true"
	assert.Equal(t, []string{a, b, ws, wss, e, ip, f, g, wss, b}, round())
	c.lastName = "cluster"
	first, err := parse("a")
	require.NoError(t, err)
	c.present.Store(&line{server: server{url: first}})
	c.attempts["b:1"], c.attempts["e:4222"] = 2, 1
	cluster := "10.0.0.1:4222 cluster false"
	assert.Equal(t, []string{ws, wss, e, cluster, f, g, wss, a}, round())
	_, err = c.name([]string{"b:1", "a"})
	require.NoError(t, err)
	assert.NotContains(t, round(), b, "it was named before")
	clear(c.named)
	_, err = c.name([]string{"b:1", "10.0.0.1"})
	require.NoError(t, err)
	assert.Equal(t, []string{b, ws, wss, e, ip, f, g, wss, b, a}, round(), "it is named anew")

	c.attempts["b:1"], c.o.Discovered = 2, true
	assert.Contains(t, round(), b, "who is discovered is tried for ever")
	c.o.Discovered, c.o.NATS.MaxReconnect = false, -1
	assert.Contains(t, round(), b, "where there is no limit, everybody is")
	c.o.NATS.MaxReconnect, c.attempts["e:4222"] = 0, 1
	assert.NotContains(t, round(), e, "who is to be tried never again is tried once")
	assert.Contains(t, round(), ws)
	c.o.NATS.MaxReconnect = -1
	c.o.NATS.Secure = true
	assert.Contains(t, round(), "a:4222 a true")
	c.o.NATS.NoRandomize = false
	ordered, other := round(), false
	for range 100 {
		other = other || !assert.ObjectsAreEqual(ordered, round())
		assert.Equal(t, "a:4222 a true", ordered[len(ordered)-1])
	}
	assert.True(t, other)
	for _, wrong := range []string{"http://u:secret@a", ":"} {
		_, err := c.name([]string{"a", wrong})
		require.ErrorContains(t, err, "connect to")
		require.NotContains(t, err.Error(), "secret")
	}
}
