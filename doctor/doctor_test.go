package doctor_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/doctor"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// secret is every password and token of these tests: no finding may have it.
const secret = "s3cr3t-0f-th3-t3st"

// examine runs the doctor. A test's set-up may take its time, and what is broken is named all the same.
func examine(t *testing.T, cfg *nats.Config, w doctor.Wants) []doctor.Finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var all []doctor.Finding
	for f := range doctor.Run(ctx, cfg, w) {
		t.Log(f)
		assert.NotContains(t, f.String(), secret)
		assert.NotContains(t, f.String(), "\n")
		all = append(all, f)
	}
	return all
}

// config reaches a server quickly, or not at all.
func config(urls ...string) *nats.Config {
	return &nats.Config{URLs: urls, DialTimeout: 5 * time.Second, JetStreamEnabled: true}
}

// restricted is a server with a user that may do what the permissions say.
func restricted(t *testing.T, permissions *server.Permissions) *nats.Config {
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: secret, Permissions: permissions}, {Username: "admin", Password: secret}}
	}))
	cfg := config(s.URL())
	cfg.Username, cfg.Password = "u", secret
	return cfg
}

// withTLS is a server with the authority's certificate "server".
func withTLS(t *testing.T, a authority, change func(*server.Options)) *nats.Config {
	pair, err := tls.LoadX509KeyPair(a.Path("server.pem"), a.Path("server-key.pem"))
	require.NoError(t, err)
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		o.TLSTimeout = 10
		if change != nil {
			change(o)
		}
	}))
	cfg := config(s.URL())
	if url := s.Embedded().WebsocketURL(); strings.HasPrefix(url, "wss://") {
		cfg = config(url)
	}
	cfg.TLSCA = a.Path("ca.pem")
	return cfg
}

// TestBroken names what is wrong in each set-up, and only that.
func TestBroken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		setUp  func(t *testing.T) (*nats.Config, doctor.Wants)
		check  string
		detail string
		remedy string
	}{
		"configuration": {check: "configuration", detail: "reconnect_wait", remedy: "mend the keys", setUp: func(*testing.T) (*nats.Config, doctor.Wants) {
			return &nats.Config{ReconnectWait: -1, Password: secret}, doctor.Wants{Publish: []string{"a"}, Streams: []string{"S"}}
		}},
		"no such name": {check: "dns", detail: "nowhere.invalid", remedy: "DNS", setUp: func(*testing.T) (*nats.Config, doctor.Wants) {
			return config("nats://u:" + secret + "@nowhere.invalid:4222"), doctor.Wants{}
		}},
		"closed port": {check: "tcp", detail: "refused", remedy: "see that a server runs", setUp: func(*testing.T) (*nats.Config, doctor.Wants) {
			return config("nats://127.0.0.1:1"), doctor.Wants{}
		}},
		"dead host": {check: "tcp", detail: "timeout", remedy: "firewall", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			cfg := config(natstest.DeadHost(t))
			cfg.DialTimeout = 200 * time.Millisecond
			return cfg, doctor.Wants{}
		}},
		"black hole": {check: "greeting", detail: "no INFO", remedy: "port for clients", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			cfg := config(natstest.SilentServer(t, ""))
			cfg.DialTimeout = time.Second
			return cfg, doctor.Wants{}
		}},
		"no NATS": {check: "greeting", detail: "does not speak the NATS protocol", remedy: "port for clients", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			return config(natstest.SilentServer(t, "SSH-2.0-OpenSSH_9.6\r\n")), doctor.Wants{}
		}},
		"wrong password": {check: "authentication", detail: `as user "u"`, remedy: "mend the user's credentials", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			s := natstest.RunServer(t, natstest.WithUser("u", "other"))
			cfg := config(s.URL())
			cfg.Username, cfg.Password = "u", secret
			return cfg, doctor.Wants{}
		}},
		"no credentials": {check: "authentication", detail: "none are configured", remedy: "give the user's credentials", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			return config(natstest.RunServer(t, natstest.WithToken(secret)).URL()), doctor.Wants{}
		}},
		"expired certificate": {check: "tls", detail: "expired", remedy: "have the server's certificate renewed", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			a := newAuthority(t)
			a.Issue(t, "server", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
			return withTLS(t, a, nil), doctor.Wants{}
		}},
		"certificate that ends soon": {check: "tls", detail: "ends in", remedy: "have the server's certificate renewed", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			a := newAuthority(t)
			a.Issue(t, "server", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(24 * time.Hour) })
			return withTLS(t, a, nil), doctor.Wants{}
		}},
		"wrong host name": {check: "tls", detail: "cannot validate certificate for 127.0.0.1", remedy: "tls_server_name: nats.test", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			a := newAuthority(t)
			a.Issue(t, "server", func(c *x509.Certificate) { c.IPAddresses = nil })
			return withTLS(t, a, nil), doctor.Wants{}
		}},
		"unknown authority": {check: "tls", detail: "unknown authority", remedy: "tls_ca", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			a := newAuthority(t)
			a.Issue(t, "server", nil)
			cfg := withTLS(t, a, nil)
			cfg.TLSCA = newAuthority(t).Path("ca.pem")
			return cfg, doctor.Wants{}
		}},
		"TLS that is not configured": {check: "tls", detail: "unknown authority", remedy: "tls_ca", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			a := newAuthority(t)
			a.Issue(t, "server", nil)
			cfg := withTLS(t, a, nil)
			cfg.TLSCA = ""
			return cfg, doctor.Wants{}
		}},
		"TLS that the server has not": {check: "tls", detail: "the server has none", remedy: "configure TLS on the server", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			cfg := config(natstest.RunServer(t).URL())
			cfg.TLSEnabled = true
			return cfg, doctor.Wants{}
		}},
		"TLS first to a server that greets": {check: "tls", detail: "first record", remedy: "tls_handshake_first to false", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			cfg := config(natstest.RunServer(t).URL())
			cfg.TLSHandshakeFirst = true
			return cfg, doctor.Wants{}
		}},
		"TLS first that is not configured": {check: "greeting", detail: "no INFO", remedy: "set tls_handshake_first", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			a := newAuthority(t)
			a.Issue(t, "server", nil)
			cfg := withTLS(t, a, func(o *server.Options) { o.TLSHandshakeFirst = true })
			cfg.DialTimeout = 2 * time.Second
			return cfg, doctor.Wants{}
		}},
		"no client certificate": {check: "tls", detail: "certificate required", remedy: "tls_cert", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			a := newAuthority(t)
			a.Issue(t, "server", nil)
			return withTLS(t, a, a.demandClients), doctor.Wants{}
		}},
		"foreign client certificate": {check: "tls", detail: "remote error", remedy: "tls_cert", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			a, other := newAuthority(t), newAuthority(t)
			a.Issue(t, "server", nil)
			other.Issue(t, "client", nil)
			cfg := withTLS(t, a, a.demandClients)
			cfg.TLSCert, cfg.TLSKey = other.Path("client.pem"), other.Path("client-key.pem")
			return cfg, doctor.Wants{}
		}},
		"no JetStream": {check: "jetstream", detail: "no responders", remedy: "enable JetStream", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			return config(natstest.RunServer(t, natstest.WithoutJetStream()).URL()), doctor.Wants{Streams: []string{"ORDERS"}}
		}},
		"no JetStream in the configuration": {check: "jetstream", detail: "jetstream_enabled is false", remedy: "set jetstream_enabled", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			cfg := config(natstest.RunServer(t).URL())
			cfg.JetStreamEnabled = false
			return cfg, doctor.Wants{Buckets: []string{"settings"}}
		}},
		"no JetStream for the account": {check: "jetstream", detail: "not enabled for account", remedy: "enable JetStream for the account", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
				account := server.NewAccount("A")
				o.Accounts = []*server.Account{account}
				o.Users = []*server.User{{Username: "u", Password: secret, Account: account}}
			}))
			cfg := config(s.URL())
			cfg.Username, cfg.Password = "u", secret
			return cfg, doctor.Wants{}
		}},
		"no right to publish": {check: "publish", detail: "Publish to", remedy: "publish to closed.a", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			return restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"closed.>"}}}),
				doctor.Wants{Publish: []string{"open.a", "closed.a"}}
		}},
		"no right to subscribe": {check: "subscribe", detail: "Subscription to", remedy: "subscribe to closed.a", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			return restricted(t, &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"closed.>"}}}),
				doctor.Wants{Subscribe: []string{"open.a", "closed.a", "open.a workers"}}
		}},
		"no right for the queue group": {check: "subscribe", detail: "denied", remedy: "open.a others", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			return restricted(t, &server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>", "open.> workers.*"}}}),
				doctor.Wants{Subscribe: []string{"open.a workers.1", "open.a others"}}
		}},
		"no stream": {check: "stream", detail: "ORDERS", remedy: "EnsureStream", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			return config(natstest.RunServer(t).URL()), doctor.Wants{Streams: []string{"ORDERS"}}
		}},
		"no consumer": {check: "consumer", detail: "ORDERS/worker", remedy: "EnsureConsumer", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			cfg := config(natstest.RunServer(t).URL())
			createStream(t, cfg, jetstream.StreamConfig{Name: "ORDERS"})
			return cfg, doctor.Wants{Streams: []string{"ORDERS"}, Consumers: []string{"ORDERS/worker"}}
		}},
		"no bucket": {check: "bucket", detail: "settings", remedy: "EnsureKeyValue", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			return config(natstest.RunServer(t).URL()), doctor.Wants{Buckets: []string{"settings"}}
		}},
		"no object bucket": {check: "object bucket", detail: "files", remedy: "EnsureObjectStore", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			return config(natstest.RunServer(t).URL()), doctor.Wants{Objects: []string{"files"}}
		}},
		"full stream": {check: "stream", detail: "9 of 10 messages", remedy: "make room", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			cfg := config(natstest.RunServer(t).URL())
			client := createStream(t, cfg, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}, MaxMsgs: 10, Discard: jetstream.DiscardNew})
			for range 9 {
				_, err := client.PublishToStream(t.Context(), "orders", nil)
				require.NoError(t, err)
			}
			return cfg, doctor.Wants{Streams: []string{"ORDERS"}}
		}},
		"account limit": {check: "account limits", detail: "streams: 5 of 6", remedy: "limits raised", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			s := natstest.RunServer(t)
			require.NoError(t, s.Embedded().GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{
				"": {MaxMemory: -1, MaxStore: -1, MaxStreams: 6, MaxConsumers: -1},
			}))
			cfg := config(s.URL())
			for i := range 5 {
				createStream(t, cfg, jetstream.StreamConfig{Name: "S" + strconv.Itoa(i)})
			}
			return cfg, doctor.Wants{}
		}},
		"clock": {check: "clock", detail: "behind this machine's", remedy: "NTP", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			cfg := config(natstest.RunServer(t).URL())
			relay(t, createStream(t, cfg, jetstream.StreamConfig{Name: "ORDERS"}).Conn())
			cfg.JetStreamAPIPrefix = "LATE"
			return cfg, doctor.Wants{Streams: []string{"ORDERS"}}
		}},
		"no Consul": {check: "consul", detail: "connection refused", remedy: "see that Consul runs", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			cfg := config(natstest.RunServer(t).URL())
			cfg.UseConsul, cfg.Consul.Address, cfg.Consul.Token = true, "127.0.0.1:1", secret
			return cfg, doctor.Wants{}
		}},
		"no passing instance": {check: "consul", detail: "no passing instance", remedy: "checks pass", setUp: func(t *testing.T) (*nats.Config, doctor.Wants) {
			agent, s := consultest.Run(t), natstest.RunServer(t)
			u, err := url.Parse(s.URL())
			require.NoError(t, err)
			port, err := strconv.Atoi(u.Port())
			require.NoError(t, err)
			instance := consultest.Instance{Service: "nats-service", Address: "127.0.0.1", Port: port}
			agent.Register(instance)
			agent.SetStatus(instance, "critical")
			cfg := config(s.URL())
			cfg.UseConsul, cfg.Consul.Address = true, agent.Address()
			return cfg, doctor.Wants{}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, wants := c.setUp(t)
			var wrong []doctor.Finding
			for _, f := range examine(t, cfg, wants) {
				if f.Status == doctor.Failed {
					wrong = append(wrong, f)
				}
			}
			require.Len(t, wrong, 1)
			assert.Equal(t, c.check, wrong[0].Check)
			assert.Contains(t, wrong[0].Detail, c.detail)
			assert.Contains(t, wrong[0].Remedy, c.remedy)
		})
	}
}

// createStream returns the client that has created it, too.
func createStream(t *testing.T, cfg *nats.Config, stream jetstream.StreamConfig) *nats.Client {
	t.Helper()
	client, err := nats.NewClient(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	_, err = client.CreateStream(t.Context(), &stream)
	require.NoError(t, err)
	return client
}

// relay answers for the JetStream API under the prefix LATE, by a clock that is ten seconds behind.
func relay(t *testing.T, nc *natsgo.Conn) {
	stamp := regexp.MustCompile(`"ts":"([^"]*)"`)
	_, err := nc.Subscribe("LATE.>", func(m *natsgo.Msg) {
		go func() {
			answer, err := nc.Request("$JS.API."+strings.TrimPrefix(m.Subject, "LATE."), m.Data, 5*time.Second)
			if err != nil {
				return
			}
			_ = m.Respond(stamp.ReplaceAllFunc(answer.Data, func(ts []byte) []byte {
				at, err := time.Parse(time.RFC3339Nano, string(stamp.FindSubmatch(ts)[1]))
				assert.NoError(t, err)
				return []byte(`"ts":"` + at.Add(-10*time.Second).Format(time.RFC3339Nano) + `"`)
			}))
		}()
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
}

// TestHealthy has everything that it wants, and every check passes, with the rights that are needed and no others.
func TestHealthy(t *testing.T) {
	t.Parallel()
	cfg := restricted(t, &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"$SYS.REQ.USER.INFO", "$JS.API.>", "$JS.ACK.ORDERS.worker.>", "orders.*"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>", "orders.>"}},
	})
	fill(t, cfg)
	for _, f := range examine(t, cfg, everything) {
		if f.Check == "consul" || f.Check == "tls" {
			assert.Equal(t, doctor.NotChecked, f.Status, f)
		} else {
			assert.Equal(t, doctor.Passed, f.Status, f)
		}
	}
}

// TestNothingIsDone: a user that may not ask for its rights has them tried, and nobody gets anything of it.
func TestNothingIsDone(t *testing.T) {
	t.Parallel()
	cfg := restricted(t, &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"orders.created", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.worker", "$JS.ACK.ORDERS.worker.>"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>", "orders.>"}},
	})
	admin := fill(t, cfg)
	heard, err := admin.Conn().SubscribeSync(">")
	require.NoError(t, err)
	require.NoError(t, admin.Conn().Flush())
	wants := everything
	wants.Publish = []string{"orders.created", "orders.deleted"}
	wants.Subscribe = []string{"orders.created", "payments", "orders.created workers"}
	status := map[string]doctor.Status{}
	for _, f := range examine(t, cfg, wants) {
		status[f.Check+" "+f.Target] = f.Status
	}
	for target, want := range map[string]doctor.Status{
		"publish orders.created": doctor.Passed, "publish orders.deleted": doctor.Failed,
		"subscribe orders.created": doctor.Passed, "subscribe payments": doctor.Failed, "subscribe orders.created workers": doctor.NotChecked,
		"jetstream ": doctor.NotChecked, "stream ORDERS": doctor.NotChecked, "consumer ORDERS/worker": doctor.NotChecked,
		"clock ": doctor.NotChecked,
	} {
		assert.Equal(t, want, status[target], target)
	}
	require.NoError(t, admin.Conn().Flush())
	for {
		m, err := heard.NextMsg(time.Millisecond)
		if err != nil {
			break
		}
		assert.NotRegexp(t, "^orders|ACK|NEXT", m.Subject, "it was delivered")
	}
	info, err := admin.GetStreamInfo(t.Context(), "ORDERS")
	require.NoError(t, err)
	assert.EqualValues(t, 1, info.State.LastSeq)
	consumer, err := admin.GetConsumerInfo(t.Context(), "ORDERS", "worker")
	require.NoError(t, err)
	assert.Zero(t, consumer.Delivered.Consumer)
}

var everything = doctor.Wants{
	Publish: []string{"orders.created", "orders.*"}, Subscribe: []string{"orders.>", "orders.created workers"},
	Streams: []string{"ORDERS"}, Consumers: []string{"ORDERS/worker"}, Buckets: []string{"settings"}, Objects: []string{"files"},
}

// fill makes everything, with a message, and returns the client that may.
func fill(t *testing.T, cfg *nats.Config) *nats.Client {
	t.Helper()
	own := *cfg
	own.Username = "admin"
	admin := createStream(t, &own, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	ctx := t.Context()
	_, err := admin.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "worker"})
	require.NoError(t, err)
	_, err = admin.CreateKeyValue(ctx, "settings")
	require.NoError(t, err)
	_, err = admin.CreateObjectStore(ctx, "files")
	require.NoError(t, err)
	_, err = admin.PublishToStream(ctx, "orders.created", nil)
	require.NoError(t, err)
	return admin
}

// TestWebsocket comes as far over wss://.
func TestWebsocket(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.Issue(t, "server", nil)
	cfg := withTLS(t, a, func(o *server.Options) {
		o.Websocket.Host, o.Websocket.Port, o.Websocket.TLSConfig = "127.0.0.1", -1, o.TLSConfig
	})
	for _, f := range examine(t, cfg, doctor.Wants{}) {
		assert.NotEqual(t, doctor.Failed, f.Status)
		assert.False(t, f.Check == "authentication" && f.Status != doctor.Passed)
	}
	cfg.TLSCA = newAuthority(t).Path("ca.pem")
	for _, f := range examine(t, cfg, doctor.Wants{}) {
		assert.Equal(t, f.Check == "tls", f.Status == doctor.Failed)
	}
}

// TestServers tells of each server, in order, and goes on with the first that lets it in.
func TestServers(t *testing.T) {
	t.Parallel()
	good := natstest.RunServer(t).URL()
	var lines []string
	for _, f := range examine(t, config("nats://nowhere.invalid", "nats://127.0.0.1:1", good), doctor.Wants{}) {
		lines = append(lines, string(f.Status)+" "+f.Check)
	}
	assert.Equal(t, []string{
		"passed configuration", "not checked consul",
		"failed dns", "not checked tcp", "not checked greeting", "not checked tls", "not checked authentication",
		"passed dns", "failed tcp", "not checked greeting", "not checked tls", "not checked authentication",
		"passed dns", "passed tcp", "passed greeting", "not checked tls", "passed authentication",
		"passed jetstream", "passed account limits", "passed clock",
	}, lines)
}

// TestEnds: whatever hangs, the end of the context or of the loop is the end.
func TestEnds(t *testing.T) {
	t.Parallel()
	server := natstest.RunServer(t)
	for name, c := range map[string]struct {
		url  string
		upTo string // then the way to the server is a black hole
	}{
		"dead host": {url: natstest.DeadHost(t)}, "silent": {url: natstest.SilentServer(t, "")},
		"silent after INFO": {url: natstest.SilentServer(t, `INFO {"server_id":"a","version":"2.10.0","max_payload":1024,"headers":true}`+"\r\n")},
		"authenticated":     {upTo: "authentication"}, "jetstream": {upTo: "jetstream"}, "stream": {upTo: "stream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := natstest.NewProxy(t, server.URL())
			cfg := config(c.url)
			if c.url == "" {
				cfg = config(proxy.URL())
			}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if c.upTo != "" {
				ctx, cancel = context.WithCancel(t.Context())
				defer cancel()
			}
			var began time.Time
			var last doctor.Finding
			for last = range doctor.Run(ctx, cfg, everything) {
				if last.Check == c.upTo {
					proxy.BlackHole()
					time.AfterFunc(100*time.Millisecond, cancel)
					began = time.Now()
				}
			}
			assert.Equal(t, "clock", last.Check)
			assert.Equal(t, doctor.NotChecked, last.Status)
			if c.upTo != "" {
				assert.Less(t, time.Since(began), 8*time.Second)
			}
		})
		t.Run(name+", left", func(t *testing.T) {
			t.Parallel()
			for f := range doctor.Run(t.Context(), config(cmp.Or(c.url, server.URL())), everything) {
				if f.Check == cmp.Or(c.upTo, "dns") {
					break
				}
			}
		})
	}
}
