package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// ConsulResolver finds the NATS servers that are registered as a service in Consul. It is safe for
// concurrent use. Between two queries it holds neither a connection nor a goroutine, so that there
// is nothing to close.
//
// Only instances whose checks all pass count. The parts of an instance's URL are:
//
//   - scheme: "nats", or what the service meta "scheme" says: nats, tls, ws or wss;
//   - host: the address of the tagged address "nats", else the service's address, else its node's;
//   - port: the port of the tagged address "nats", else the service meta "nats_port", else the
//     service's port. The tagged address comes first because it is registered as a whole: its host
//     with another's port could be an endpoint that nobody listens on.
//
// An instance that is left with the port of the gRPC gateway (Config.GRPCPort, 50056 by default)
// names no NATS port and is the gateway itself. It is skipped with a warning, as is an instance
// whose registration makes no URL; the others are used all the same. An answer is read up to 8 MiB.
type ConsulResolver struct {
	service    string
	datacenter string
	namespace  string
	tag        string
	near       string
	timeout    time.Duration
	grpcPort   int
	log        *slog.Logger
	health     *api.Health
	skipped    *atomic.Pointer[string] // what of the last answer was skipped, as it was logged
	// token reads the ACL token. It is a function so that no way of printing the resolver, copied
	// or not, can show the token.
	token func() (string, error)
}

// NewConsulResolver returns a resolver for the instances of service. It refuses what could never
// work before anything is sent: [ErrInvalidConfig] for cfg, [ErrInvalidArgument] for service.
//
// What cfg leaves empty is taken from the CONSUL_* variables of Consul's own tools. A token file is
// read at every query, so that a rotated token takes effect without a restart.
func NewConsulResolver(cfg ConsulConfig, service string) (*ConsulResolver, error) {
	return newConsulResolver(cfg, service, defaultGRPCPort, slog.New(slog.DiscardHandler))
}

// newConsulResolver is NewConsulResolver for the client, which knows the gateway's port and has a
// logger. A grpcPort of 0 skips nothing.
func newConsulResolver(cfg ConsulConfig, service string, grpcPort int, log *slog.Logger) (*ConsulResolver, error) {
	if reason := checkServiceName(service); reason != "" {
		return nil, fail("discover", service, ErrInvalidArgument, "service name %s", reason)
	}
	cfg.Timeout = min(cmp.Or(cfg.Timeout, defaultConsulTimeout), maxConsulTimeout)
	client, token, err := newConsulClient(cfg)
	if err != nil {
		return nil, fail("discover", service, ErrInvalidConfig, "%w", err)
	}
	return &ConsulResolver{
		service:    service,
		datacenter: cfg.Datacenter,
		namespace:  cfg.Namespace,
		tag:        cfg.Tag,
		near:       cfg.Near,
		timeout:    cfg.Timeout,
		grpcPort:   grpcPort,
		log:        log,
		health:     client.Health(),
		skipped:    new(atomic.Pointer[string]),
		token:      token,
	}, nil
}

// checkServiceName tells what is wrong with name, "" for nothing. The name becomes a part of the
// path of Consul's API, which upstream does not escape.
func checkServiceName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case name == "." || name == ".." || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == '/' || c == 0x7f }):
		return "must not be a path or hold spaces or control characters"
	}
	return ""
}

// Resolve asks Consul once, within ConsulConfig.Timeout. The URLs are in Consul's order, which is
// by distance when ConsulConfig.Near is set, and without duplicates.
//
// When no instance is usable, the error names the service, the datacenter and the tag and tells
// why instances were skipped. A token that is refused is [ErrAuthorization], one that may not read
// the service [ErrPermission]; a query that takes too long is [ErrTimeout].
func (r *ConsulResolver) Resolve(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	urls, _, err := r.query(ctx, 0)
	return urls, err
}

// query asks for the service's instances and returns the index of the answer. With a waitIndex
// other than 0 Consul holds the query until the service has changed since that index, and the
// caller's ctx bounds the wait. The index is also valid with the error that no instance is usable;
// it is 0 when there was no answer.
func (r *ConsulResolver) query(ctx context.Context, waitIndex uint64) ([]string, uint64, error) {
	token, err := r.token()
	if err != nil {
		return nil, 0, wrap("discover", r.service, fmt.Errorf("consul token: %w", err))
	}
	options := &api.QueryOptions{
		Datacenter: r.datacenter,
		Namespace:  r.namespace,
		Near:       r.near,
		Token:      token,
		WaitIndex:  waitIndex,
		WaitTime:   consulWait,
	}
	entries, meta, err := r.health.Service(r.service, r.tag, true, options.WithContext(ctx))
	if err != nil {
		return nil, 0, r.queryError(token, err)
	}

	urls, skipped := instanceURLs(entries, r.grpcPort)
	text := skippedText(skipped)
	// One warning, and not again at every query for as long as the registrations stay as they are.
	if last := r.skipped.Swap(&text); text != "" && (last == nil || *last != text) {
		r.log.WarnContext(ctx, "consul instances skipped", slog.String("service", r.service), slog.String("skipped", text))
	}
	if len(urls) > 0 {
		return urls, meta.LastIndex, nil
	}
	return nil, meta.LastIndex, r.emptyError(text, token, meta)
}

// queryError sorts an error of Consul's or of the way to it.
func (r *ConsulResolver) queryError(token string, err error) error {
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return fail("discover", r.service, nil, "consul, asked%s: the answer is longer than %d MiB: narrow it with consul.tag",
			r.scope(), long.Limit>>20)
	}
	var status api.StatusError
	if !errors.As(err, &status) {
		return wrap("discover", r.service, fmt.Errorf("consul: %w", err))
	}
	// The body is whatever answered: a proxy may send a page, or echo the request's headers.
	status.Body = excerpt(status.Body, token)
	switch {
	case status.Code == http.StatusUnauthorized,
		status.Code == http.StatusForbidden && strings.Contains(status.Body, "not found"):
		return fail("discover", r.service, ErrAuthorization, "consul does not know the ACL token: %w", status)
	case status.Code == http.StatusForbidden:
		return fail("discover", r.service, ErrPermission, "%s: %w", neededPermission, status)
	}
	return fail("discover", r.service, nil, "consul, asked%s: %w", r.scope(), status)
}

// scope tells where was looked.
func (r *ConsulResolver) scope() string {
	text := " in the consul agent's own datacenter"
	if r.datacenter != "" {
		text = fmt.Sprintf(" in datacenter %q", r.datacenter)
	}
	if r.tag != "" {
		text += fmt.Sprintf(" with tag %q", r.tag)
	}
	return text
}

const neededPermission = "the consul ACL token needs the permissions service:read and node:read"

// emptyError explains an answer without a usable instance.
func (r *ConsulResolver) emptyError(skipped, token string, meta *api.QueryMeta) error {
	text := "no passing instance" + r.scope()
	if skipped != "" {
		text = "no usable instance" + r.scope() + ", " + skipped
	}

	var kind error
	switch {
	case meta.ResultsFilteredByACLs:
		kind = ErrPermission
		text += "; consul withheld some: " + neededPermission
	case token == "" && meta.DefaultACLPolicy == "deny":
		// Consul does not tell strangers whether it withheld something, so this is only likely.
		text += "; no consul ACL token was given and the default policy is deny: " + neededPermission
	}
	return fail("discover", r.service, kind, "%s", text)
}

// excerpt shortens a text of unknown origin to what fits an error, without secret.
func excerpt(text, secret string) string {
	const limit = 200
	if secret != "" {
		text = strings.ReplaceAll(text, secret, "***")
	}
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return strings.ToValidUTF8(text, "")
}
