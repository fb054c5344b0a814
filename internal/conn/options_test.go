package conn_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// What becomes of each option of nats.go. An upgrade that brings a new one fails here until somebody has
// decided.
var optionFates = map[string]string{
	"NoRandomize": "taken", "InProcessServer": "taken", "Dialer": "taken", "AllowMultipathTCP": "taken", "CustomDialer": "taken",
	"SkipHostLookup": "taken", "Secure": "taken", "TLSConfig": "taken", "TLSCertCB": "taken", "TLSHandshakeFirst": "taken",
	"RootCAsCB": "taken", "UserJWT": "taken", "Nkey": "taken", "SignatureCB": "taken", "User": "taken",
	"Password": "taken", "UserInfo": "taken", "Token": "taken", "TokenHandler": "taken", "MaxPingsOut": "taken", "MaxReconnect": "taken", "ReconnectErrCB": "taken",

	"NoEcho": "both", "Name": "both", "Verbose": "both", "Pedantic": "both", "PingInterval": "both", "ReconnectBufSize": "both", "Timeout": "both", "ReconnectWait": "both",
	"ReconnectJitter": "both", "ReconnectJitterTLS": "both",
	"ProxyPath": "both", "WebSocketConnectionHeaders": "both", "WebSocketConnectionHeadersHandler": "both",

	"DrainTimeout": "handed on", "FlusherTimeout": "handed on", "ReconnectOnFlusherError": "handed on",
	"DisconnectedCB": "handed on", "DisconnectedErrCB": "handed on", "ConnectedCB": "handed on", "ReconnectedCB": "handed on",
	"DiscoveredServersCB": "handed on", "SubChanLen": "handed on", "UseOldRequestStyle": "handed on",
	"NoCallbacksAfterClientClose": "handed on", "LameDuckModeHandler": "handed on", "Compression": "handed on",
	"InboxPrefix": "handed on", "PermissionErrOnSubscribe": "handed on", "SkipSubjectValidation": "handed on",
	"IgnoreDiscoveredServers": "handed on", "WriteBufferSize": "handed on",
	"ClosedCB": "chained", "AsyncErrorCB": "chained",

	"AllowReconnect": "refused", "CustomReconnectDelayCB": "refused", "ReconnectToServerCB": "refused", "RetryOnFailedConnect": "refused",
	"Url": "refused", "Servers": "refused",

	"IgnoreAuthErrorAbort": "own", // always
}

func TestEveryOptionHasAFate(t *testing.T) {
	t.Parallel()
	options := reflect.TypeFor[natsgo.Options]()
	for i := range options.NumField() {
		require.Contains(t, optionFates, options.Field(i).Name)
	}
	require.Len(t, optionFates, options.NumField())

	given := fullOptions()
	c := conn.New(conn.Options{NATS: given, RequestTimeout: time.Second}, &heard{})
	t.Cleanup(c.Close)
	told := c.Told()
	for i := range options.NumField() {
		name := options.Field(i).Name
		was, is := reflect.ValueOf(*given).Field(i), reflect.ValueOf(told).Field(i)
		switch optionFates[name] {
		case "handed on", "both":
			require.True(t, same(was, is), "%s is handed on", name)
		case "chained":
			require.False(t, is.IsNil(), name)
			require.False(t, same(was, is), "%s has the connection's own before it", name)
		case "taken":
			require.False(t, same(was, is), "%s is not nats.go's any more", name)
		}
	}
}

// fullOptions has every field set.
func fullOptions() *natsgo.Options {
	o := &natsgo.Options{
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13}, InProcessServer: nil, Dialer: &net.Dialer{Timeout: 1},
		WebSocketConnectionHeaders: http.Header{"A": {"b"}}, CustomDialer: &net.Dialer{},
	}
	v := reflect.ValueOf(o).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int, reflect.Int64:
			f.SetInt(3)
		case reflect.String:
			f.SetString("x")
		case reflect.Func:
			f.Set(reflect.MakeFunc(f.Type(), func([]reflect.Value) []reflect.Value {
				out := make([]reflect.Value, f.Type().NumOut())
				for j := range out {
					out[j] = reflect.Zero(f.Type().Out(j))
				}
				return out
			}))
		default:
		}
	}
	yes := true
	o.AllowMultipathTCP = &yes
	o.InProcessServer = inProcess{}
	o.NoRandomize, o.SkipHostLookup = false, false // nats.go is told true
	return o
}

type inProcess struct{ net.Conn }

func (p inProcess) InProcessConn() (net.Conn, error) { return p.Conn, nil }

func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Func {
		return a.Pointer() == b.Pointer()
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

func TestRefusedOptions(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]natsgo.Option{
		"ReconnectToServer":    natsgo.ReconnectToServer(func([]natsgo.Server, natsgo.ServerInfo) (*natsgo.Server, time.Duration) { return nil, 0 }),
		"CustomReconnectDelay": natsgo.CustomReconnectDelay(func(int) time.Duration { return 0 }),
		"RetryOnFailedConnect": natsgo.RetryOnFailedConnect(true),
		"NoReconnect":          natsgo.NoReconnect(),
		"Servers":              func(o *natsgo.Options) error { o.Servers = []string{"x"}; return nil },
	} {
		o := natsgo.GetDefaultOptions()
		require.NoError(t, conn.Check(&o))
		require.NoError(t, option(&o))
		err := conn.Check(&o)
		require.ErrorIs(t, err, fault.ErrInvalidConfig)
		require.ErrorContains(t, err, name)
	}
}

// A server within the process, and a dialler of the user's.
func TestOtherWaysToDial(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	c, _ := open(t, func(o *conn.Options) { o.NATS.InProcessServer = s.Embedded() }, "nats://nowhere.invalid:4222")
	require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
	dialler := &counting{}
	c, _ = open(t, func(o *conn.Options) { o.NATS.CustomDialer = dialler }, s.URL())
	require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
	require.EqualValues(t, 1, dialler.n.Load())
}

type counting struct{ n atomic.Int64 }

func (d *counting) Dial(network, address string) (net.Conn, error) {
	d.n.Add(1)
	return net.Dial(network, address)
}

// Each server is tried so many times in a row; then the connection is closed for good, unless discovery may
// name others.
func TestMaxReconnect(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	dialler := &counting{}
	c, h := open(t, func(o *conn.Options) { o.NATS.MaxReconnect, o.NATS.CustomDialer = 2, dialler }, s.URL())
	discovered, _ := open(t, func(o *conn.Options) { o.NATS.MaxReconnect, o.Discovered = 2, true }, s.URL())
	s.Stop()
	require.Eventually(t, func() (closed bool) {
		h.do(func() { closed = h.closed })
		return closed
	}, time.Minute, time.Millisecond)
	require.True(t, c.IsClosed())
	require.LessOrEqual(t, dialler.n.Load(), int64(5))
	require.False(t, discovered.IsClosed())
	s.Restart()
	require.NoError(t, discovered.RoundTrip(within(t, time.Minute), "test", ""))
}
