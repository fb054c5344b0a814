package nats

import (
	"cmp"
	"context"
	"sync"

	"github.com/nats-io/nats.go/micro"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/receive"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/service"
)

// ServiceConfig describes a service to those who look for it, such as `nats micro`.
type ServiceConfig struct {
	// Name is the kind of the service, which its instances share: letters, digits, - and _.
	Name string
	// Version is a semantic version, such as "1.0.0".
	Version string
	// Description is for people, and Metadata for tools.
	Description string
	Metadata    map[string]string
	// Queue is the queue group of the endpoints that name none. Defaults to "q".
	Queue string
}

// Endpoint is a subject on which a service handles requests.
type Endpoint struct {
	// Name consists of letters, digits, - and _.
	Name string
	// Subject may have wildcards. Defaults to Name.
	Subject string
	// Queue is the queue group in which the instances of the service share the requests. Defaults to that of the
	// service.
	Queue string
	// EveryInstance has all instances handle each request: there is no queue group.
	EveryInstance bool
	Metadata      map[string]string
	// Handler is called and answered for as by HandleRequests.
	Handler RequestHandler
	// Options are those of HandleRequests.
	Options []SubscribeOption
}

// GroupEndpoints returns the endpoints with prefix, and a dot, before their subjects. Groups may be grouped.
func GroupEndpoints(prefix string, endpoints ...Endpoint) []Endpoint {
	grouped := append([]Endpoint(nil), endpoints...)
	for i, e := range grouped {
		grouped[i].Subject = prefix + "." + cmp.Or(e.Subject, e.Name)
	}
	return grouped
}

// Service is a running instance of a service. It is made by AddService, and its methods are safe for concurrent use.
type Service struct {
	client *Client
	inner  *service.Service
	subs   []*receive.Subscription
}

// AddService runs a service in the convention of NATS (ADR-32), with a new ID: it handles the requests to its endpoints
// as HandleRequests does, and tells those who ask for it, for example `nats micro`, what it is and what it has done. It
// lives until Stop, the end of ctx, which is a graceful one, or Close. The errors are ErrInvalidArgument and those of
// Subscribe.
func (c *Client) AddService(ctx context.Context, cfg ServiceConfig, endpoints ...Endpoint) (*Service, error) {
	info := micro.Info{Description: cfg.Description}
	info.Name, info.Version, info.Metadata = cfg.Name, cfg.Version, cfg.Metadata
	for _, e := range endpoints {
		queue := cmp.Or(e.Queue, cfg.Queue, micro.DefaultQueueGroup)
		if e.EveryInstance {
			queue = ""
		}
		info.Endpoints = append(info.Endpoints, micro.EndpointInfo{
			Name: e.Name, Subject: cmp.Or(e.Subject, e.Name), QueueGroup: queue, Metadata: e.Metadata,
		})
	}
	inner, err := service.New(info)
	if err != nil {
		return nil, err
	}
	s := &Service{client: c, inner: inner}
	var mu sync.Mutex
	var all sync.WaitGroup // each waits for the server
	begin := func(subscribe func() (*Subscription, error)) {
		all.Go(func() {
			sub, failure := subscribe()
			mu.Lock()
			defer mu.Unlock()
			if failure != nil {
				err = cmp.Or(err, failure)
				return
			}
			s.subs = append(s.subs, sub.inner)
		})
	}
	for i, e := range endpoints {
		at, opts := info.Endpoints[i], append([]SubscribeOption{inner.Endpoint(i).Count}, e.Options...)
		begin(func() (*Subscription, error) {
			return c.HandleRequests(ctx, at.Subject, at.QueueGroup, e.Handler, opts...)
		})
	}
	for subject, tell := range inner.Monitor() { // past the interceptors
		answer := func(msg *Message) error {
			data, err := tell()
			if err == nil && msg.Reply != "" {
				err = msg.respond(&Message{Data: data})
			}
			return msg.answer(nil, err) // which is sent in the place of what is too large
		}
		begin(func() (*Subscription, error) { return c.subscribeTold(ctx, subject, "", answer, nil) })
	}
	if all.Wait(); err != nil {
		for _, sub := range s.subs {
			sub.Stop(err)
		}
		return nil, err
	}
	return s, nil
}

// Info returns what the service tells of itself.
func (s *Service) Info() micro.Info { return s.inner.Info() }

// Stats returns the counters of the endpoints since the service, or the last Reset, began. Errors are the requests that
// were answered with one, those that were dropped included; their texts are what the callers were told.
func (s *Service) Stats() micro.Stats { return s.inner.Stats() }

// Reset begins to count anew.
func (s *Service) Reset() { s.inner.Reset() }

// Stop ends the service gracefully, as Subscription.Drain does a subscription, and returns the same.
func (s *Service) Stop(ctx context.Context) error {
	const op = "stop service"
	name := s.inner.Info().Name
	if ctx == nil {
		return errNilContext(op, name)
	}
	ctx, cancel := s.client.drainDeadline(ctx)
	defer cancel()
	return s.client.subs.Drain(ctx, op, name, ErrUnsubscribed, s.subs...)
}
