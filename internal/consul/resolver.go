package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Config tells how to reach Consul; the root package's ConsulConfig has the same fields and says what they mean.
type Config struct {
	Address    string
	Scheme     string
	Token      string
	TokenFile  string
	Datacenter string
	Namespace  string
	Tag        string
	Near       string
	Timeout    time.Duration
	Evict      bool // is the client's, not the resolver's
	CAFile     string
}

// The bounds of Config.Timeout.
const (
	DefaultTimeout = 2 * time.Second
	maxTimeout     = 24 * time.Hour // so that no sum of times overflows
)

// Resolver finds the instances of a service. It is safe for concurrent use, and there is nothing to
// close.
type Resolver struct {
	cfg      Config // without its secrets
	service  string
	grpcPort int
	log      *slog.Logger
	health   *api.Health
	token    func() (string, error)
	skipped  atomic.Pointer[string] // what of the last answer was skipped, as it was logged
}

// New returns a resolver for the instances of service. It refuses what could never work before
// anything is sent. An instance on grpcPort that names no NATS port is skipped; 0 skips nothing.
func New(cfg Config, service string, grpcPort int, log *slog.Logger) (*Resolver, error) {
	if reason := checkServiceName(service); reason != "" {
		return nil, fault.New("discover", service, fault.ErrInvalidArgument, "service name %s", reason)
	}
	cfg.Timeout = min(cmp.Or(cfg.Timeout, DefaultTimeout), maxTimeout)
	client, token, err := newClient(cfg)
	if err != nil {
		return nil, fault.New("discover", service, fault.ErrInvalidConfig, "%w", err)
	}
	cfg.Token, cfg.Address = "", ""
	return &Resolver{cfg: cfg, service: service, grpcPort: grpcPort, log: log, health: client.Health(), token: token}, nil
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

// Resolve asks Consul once, within Config.Timeout. The URLs are in Consul's order and without
// duplicates. When none is usable, the error tells why instances were skipped.
func (r *Resolver) Resolve(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	urls, _, err := r.query(ctx, 0)
	return urls, err
}

// query asks for the service's instances and returns the index of the answer. With a waitIndex
// other than 0 Consul holds the query until the service has changed since that index, and the
// caller's ctx bounds the wait. The index is also valid with the error that no instance is usable;
// it is 0 when there was no answer.
func (r *Resolver) query(ctx context.Context, waitIndex uint64) ([]string, uint64, error) {
	token, err := r.token()
	if err != nil {
		return nil, 0, fault.Wrap("discover", r.service, err)
	}
	options := &api.QueryOptions{
		Datacenter: r.cfg.Datacenter,
		Namespace:  r.cfg.Namespace,
		Near:       r.cfg.Near,
		Token:      token,
		WaitIndex:  waitIndex,
		WaitTime:   maxWait,
	}
	entries, meta, err := r.health.Service(r.service, r.cfg.Tag, true, options.WithContext(ctx))
	if err != nil {
		return nil, 0, r.queryError(token, err)
	}

	urls, text := instanceURLs(entries, r.grpcPort)
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
func (r *Resolver) queryError(token string, err error) error {
	if long, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fault.New("discover", r.service, nil, "consul, asked%s: the answer is longer than %d MiB: narrow it with consul.tag",
			r.scope(), long.Limit>>20)
	}
	status, ok := errors.AsType[api.StatusError](err)
	if !ok {
		if slow, is := errors.AsType[net.Error](err); is && slow.Timeout() && !errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", err, context.DeadlineExceeded) // the socket knows it before the context does
		}
		return fault.Wrap("discover", r.service, fmt.Errorf("consul: %w", foreignError{err, token}))
	}
	// The body is whatever answered: a proxy may send a page, or echo the request's headers.
	status.Body = excerpt(status.Body, token)
	switch {
	case status.Code == http.StatusUnauthorized,
		status.Code == http.StatusForbidden && strings.Contains(status.Body, "not found"):
		return fault.New("discover", r.service, fault.ErrAuthorization, "consul does not know the ACL token: %w", status)
	case status.Code == http.StatusForbidden:
		return fault.New("discover", r.service, fault.ErrPermission, "%s: %w", neededPermission, status)
	}
	return fault.New("discover", r.service, nil, "consul, asked%s: %w", r.scope(), status)
}

// scope tells where was looked.
func (r *Resolver) scope() string {
	text := " in the consul agent's own datacenter"
	if r.cfg.Datacenter != "" {
		text = fmt.Sprintf(" in datacenter %q", r.cfg.Datacenter)
	}
	if r.cfg.Tag != "" {
		text += fmt.Sprintf(" with tag %q", r.cfg.Tag)
	}
	return text
}

const neededPermission = "the consul ACL token needs the permissions service:read and node:read"

// emptyError explains an answer without a usable instance.
func (r *Resolver) emptyError(skipped, token string, meta *api.QueryMeta) error {
	text := "no passing instance" + r.scope()
	if skipped != "" {
		text = "no usable instance" + r.scope() + ", " + skipped
	}

	var kind error
	switch {
	case meta.ResultsFilteredByACLs:
		kind = fault.ErrPermission
		text += "; consul withheld some: " + neededPermission
	case token == "" && meta.DefaultACLPolicy == "deny":
		// Consul does not tell strangers whether it withheld something, so this is only likely.
		text += "; no consul ACL token was given and the default policy is deny: " + neededPermission
	}
	return fault.New("discover", r.service, kind, "%s", text)
}

// foreignError is one that may quote what has answered: a header, say.
type foreignError struct {
	error
	token string
}

func (e foreignError) Error() string { return bounded(e.error.Error(), e.token, 1000) }
func (e foreignError) Unwrap() error { return e.error }

// excerpt shortens a text of unknown origin to what fits an error, without secret.
func excerpt(text, secret string) string { return bounded(text, secret, 200) }

func bounded(text, secret string, limit int) string {
	text = strings.ToValidUTF8(text, "") // before the secret is looked for: it may show when this is done
	if secret != "" {
		text = strings.ReplaceAll(text, secret, "***")
	}
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}
