package conn

import (
	"cmp"
	"math"
	"reflect"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Check refuses the options of nats.go that this package decides itself, by their names and with what to do
// instead.
func Check(o *natsgo.Options) error {
	for _, refused := range []struct {
		is     bool
		name   string
		remedy string
	}{
		{o.ReconnectToServerCB != nil, "ReconnectToServer", "set the servers with a resolver, and their order with DontRandomize"},
		{o.CustomReconnectDelayCB != nil, "CustomReconnectDelay", "set reconnect_wait and reconnect_max_wait"},
		{o.RetryOnFailedConnect, "RetryOnFailedConnect", "use WithBackgroundConnect"},
		{!o.AllowReconnect, "NoReconnect", "set max_reconnect to 1"},
		{o.Url != "" || len(o.Servers) > 0, "Servers", "set urls, or use a resolver"},
	} {
		if refused.is {
			return fault.New("connect", "", fault.ErrInvalidConfig, "the option %s of nats.go is the client's own; %s", refused.name, refused.remedy)
		}
	}
	return nil
}

// natsOptions returns what nats.go is told: the user's options but for those that are seen to here.
func (c *Conn) natsOptions(background bool) natsgo.Options {
	o := *c.o.NATS
	if c.o.Contain != nil {
		contain(&o, c.o.Contain)
	}
	o.CustomDialer = dialer{c}
	o.InProcessServer, o.Dialer, o.AllowMultipathTCP = nil, nil, nil
	o.SkipHostLookup, o.NoRandomize = true, true
	o.AllowReconnect, o.MaxReconnect = true, -1
	o.ReconnectToServerCB = c.choose
	o.RetryOnFailedConnect = background
	o.IgnoreAuthErrorAbort = true
	o.MaxPingsOut = math.MaxInt32 // the line knows which pings have left
	o.Secure, o.TLSConfig, o.TLSCertCB, o.RootCAsCB, o.TLSHandshakeFirst = false, nil, nil, nil, false
	o.User, o.Password, o.Token, o.UserInfo, o.TokenHandler = "", "", "", nil, nil
	o.Nkey, o.UserJWT, o.SignatureCB = "", nil, nil
	closed, async := o.ClosedCB, o.AsyncErrorCB
	o.AsyncErrorCB = func(nc *natsgo.Conn, sub *natsgo.Subscription, err error) {
		if l := c.present.Load(); l != nil && l.websocket != nil && IsDenial(err) {
			c.denied(err) // nobody saw it in the frames
		}
		if async != nil {
			async(nc, sub, err)
		}
	}
	o.ReconnectErrCB = nil // all that nats.go could tell is errNotYet; see note
	o.ClosedCB = func(nc *natsgo.Conn) {
		c.onClosed(nc)
		if closed != nil {
			closed(nc)
		}
	}
	return o
}

// contain lets no panic of a callback end the process: they run on goroutines of nats.go.
func contain(o *natsgo.Options, within func(name string, callback func())) {
	fields := reflect.ValueOf(o).Elem()
	for i := range fields.NumField() {
		name := fields.Type().Field(i).Name
		switch field := fields.Field(i).Addr().Interface().(type) {
		case *natsgo.ConnHandler:
			if call := *field; call != nil {
				*field = func(nc *natsgo.Conn) { within(name, func() { call(nc) }) }
			}
		case *natsgo.ConnErrHandler:
			if call := *field; call != nil {
				*field = func(nc *natsgo.Conn, err error) { within(name, func() { call(nc, err) }) }
			}
		case *natsgo.ErrHandler:
			if call := *field; call != nil {
				*field = func(nc *natsgo.Conn, sub *natsgo.Subscription, err error) {
					within(name, func() { call(nc, sub, err) })
				}
			}
		}
	}
}

// onClosed is called when the connection is closed for good, by this side, by the user of nats.go's
// connection, or since all attempts are used up.
func (c *Conn) onClosed(nc *natsgo.Conn) {
	<-c.born
	if nc != c.nc {
		return
	}
	cause := cmp.Or(c.LastError(), nc.LastError())
	c.close()
	c.cancel()
	c.told.Push(func() { c.reports.Closed(cause) })
}
