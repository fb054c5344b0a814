package doctor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consul"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/discovery"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// servers returns the URLs to try: those that Consul names, or the configured ones, as the client does.
func (x *examination) servers() []string {
	urls := x.cfg.URLs
	x.check("consul", x.cfg.ServiceName, func(ctx context.Context) Finding {
		if !x.cfg.UseConsul {
			return unknown("use_consul is false")
		}
		r, err := consul.New(consul.Config(x.cfg.Consul), x.cfg.ServiceName, x.cfg.GRPCPort, slog.New(slog.DiscardHandler))
		if err != nil {
			return failed(err, "mend the block consul of the configuration")
		}
		named, err := r.Resolve(ctx)
		if err != nil {
			return failed(err, consulRemedy(err)+"; until then the client uses urls")
		}
		first, err := serverurl.Parse(urls[0], false)
		usable, wrong := discovery.Usable(named, err == nil && serverurl.IsWebsocket(first))
		if len(usable) > 0 {
			urls = usable
		}
		if wrong != "" {
			return failed(errors.New(wrong), "register every server with the address, port and scheme for clients")
		}
		return passed(list(serverurl.RedactAll(usable)))
	})
	return urls
}

func consulRemedy(err error) string {
	var network net.Error
	switch {
	case errors.Is(err, nats.ErrAuthorization):
		return "give a valid token in consul.token or consul.token_file"
	case errors.Is(err, nats.ErrPermission):
		return "give the token the right to read the service and its nodes"
	case errors.Is(err, nats.ErrTimeout), errors.As(err, &network):
		return "see that Consul runs at consul.address and can be reached from here"
	}
	return "see that the service is registered as service_name and that its checks pass"
}

// connect tries all servers at once, tells of them in order, and returns a client of the first that lets it in.
func (x *examination) connect(urls []string) *nats.Client {
	clients := make([]*nats.Client, len(urls))
	told := make([]chan Finding, len(urls))
	for i, url := range urls {
		told[i] = make(chan Finding, len(steps))
		go func() {
			defer close(told[i])
			clients[i] = x.server(url, func(f Finding) { told[i] <- f })
		}()
	}
	var client *nats.Client
	for i, told := range told {
		for f := range told {
			x.tell(f)
		}
		switch {
		case client == nil:
			client = clients[i]
		case clients[i] != nil:
			x.end(clients[i])
		}
	}
	return client
}

// steps are the checks of a server, each of which stands on the one before.
var steps = []string{"dns", "tcp", "greeting", "tls", "authentication"}

// server tells how far a connection comes, and returns a client if it comes all the way.
//
// Name and address are tried singly. The rest is one attempt of the client itself, whose error says where it
// ended: what is found is what the service will meet, with its credentials and files.
func (x *examination) server(url string, tell func(Finding)) (client *nats.Client) {
	target := serverurl.Host(url)
	left, broken := steps, ""
	next := func(f Finding) {
		if broken != "" {
			f = unknown(broken)
		}
		if f.Status == Failed || x.ctx.Err() != nil {
			broken = left[0] + " " + string(f.Status)
		}
		f.Check, f.Target = left[0], target
		left = left[1:]
		tell(f)
	}
	host, port, _ := net.SplitHostPort(target)
	var addresses []string
	next(x.look(func(ctx context.Context) (f Finding) {
		ctx, cancel := context.WithTimeout(ctx, x.cfg.DialTimeout)
		defer cancel()
		var err error
		addresses, err = net.DefaultResolver.LookupHost(ctx, host) // an address is its own
		if err != nil {
			return failed(err, "mend the host in the URL, or this machine's DNS")
		}
		return passed(list(addresses))
	}))
	if broken == "" {
		next(x.look(func(ctx context.Context) Finding { return x.dial(ctx, addresses, port) }))
	}
	at := ""
	result := unknown(broken)
	if broken == "" {
		result = x.look(func(ctx context.Context) (f Finding) {
			var err error
			if client, err = x.attempt(ctx, url); err != nil {
				at, f = diagnose(err)
				return f
			}
			return passed("by " + client.Conn().ConnectedServerName())
		})
	}
	for len(left) > 0 {
		switch step := left[0]; {
		case step == "greeting" && at != step:
			next(passed("a NATS server"))
		case step == "tls" && at != step:
			next(x.encryption(client))
		default:
			next(result)
		}
	}
	return client
}

// dial tries the addresses until one takes a connection.
func (x *examination) dial(ctx context.Context, addresses []string, port string) Finding {
	dialer := net.Dialer{Timeout: x.cfg.DialTimeout}
	var errs []error
	for _, address := range addresses {
		c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(address, port))
		if err == nil {
			_ = c.Close()
			return passed(c.RemoteAddr().String())
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if slow := net.Error(nil); errors.As(err, &slow) && slow.Timeout() {
		return failed(err, "see that a route leads there and that no firewall drops what is sent")
	}
	return failed(err, "see that a server runs there and that this is its port for clients")
}

// once names one server to the client. The client asks again when its attempt has failed, which ends it.
type once struct {
	url   string
	asked atomic.Bool
	end   context.CancelFunc
}

func (o *once) Resolve(context.Context) ([]string, error) {
	if o.asked.Swap(true) {
		o.end()
	}
	return []string{o.url}, nil
}

func (x *examination) attempt(ctx context.Context, url string) (*nats.Client, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return nats.NewClientContext(ctx, &x.cfg, nats.WithResolver(&once{url: url, end: cancel}))
}

// diagnose tells at which step an attempt has failed, and why.
func diagnose(err error) (step string, f Finding) {
	if one := (*conn.ServerError)(nil); errors.As(err, &one) {
		err = one.Err
	}
	text := err.Error()
	switch {
	case errors.Is(err, natsgo.ErrTLS), errors.Is(err, natsgo.ErrSecureConnWanted), strings.Contains(text, "tls: "):
		return "tls", failed(err, tlsRemedy(err))
	case strings.Contains(text, "INFO"), strings.Contains(text, "websocket"):
		return "greeting", failed(err, "see that this is the port for clients and that nothing on the way holds data back; "+
			"if the server begins with TLS, set tls_handshake_first")
	case strings.Contains(text, "none are configured"):
		return "authentication", failed(err, "give the user's credentials: username and password, token, nkey_seed or creds")
	case strings.Contains(text, "xpired"):
		return "authentication", failed(err, "have the credentials of the user or its account renewed")
	case strings.Contains(text, "uthorization"):
		return "authentication", failed(err, "mend the user's credentials, or have the user added to the server")
	}
	return "authentication", failed(err, "see the server's log")
}
