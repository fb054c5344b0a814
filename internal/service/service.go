package service

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Service is one instance of a service. Its methods are safe for concurrent use.
type Service struct {
	info      micro.Info
	endpoints []*Endpoint
	started   atomic.Pointer[time.Time]
}

// What ADR-32 allows; the version is that of semver.org.
const (
	names    = `^[A-Za-z0-9_-]+$`
	versions = `^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
		`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`
)

// New returns the service that info describes, with an ID.
func New(info micro.Info) (*Service, error) {
	const op = "add service"
	if !matches(names, info.Name) {
		return nil, fault.New(op, info.Name, fault.ErrInvalidArgument, "the name must consist of letters, digits, - and _")
	}
	if !matches(versions, info.Version) {
		return nil, fault.New(op, info.Name, fault.ErrInvalidArgument, `the version must be a semantic one, such as "1.0.0", got %q`, info.Version)
	}
	s := &Service{info: info}
	for _, e := range info.Endpoints {
		if !matches(names, e.Name) {
			return nil, fault.New(op, info.Name, fault.ErrInvalidArgument, "the name of endpoint %q must consist of letters, digits, - and _", e.Name)
		}
		e.Metadata = maps.Clone(e.Metadata)
		s.endpoints = append(s.endpoints, &Endpoint{info: e})
	}
	s.info.ID, s.info.Type, s.info.Metadata = rand.Text(), micro.InfoResponseType, maps.Clone(info.Metadata)
	if s.info.Metadata == nil {
		s.info.Metadata = map[string]string{}
	}
	s.Reset()
	return s, nil
}

func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }

// Endpoint returns one by its place.
func (s *Service) Endpoint(i int) *Endpoint { return s.endpoints[i] }

// Monitor returns the subjects on which those ask who look for services, and what answers them.
func (s *Service) Monitor() map[string]func() ([]byte, error) {
	monitor := make(map[string]func() ([]byte, error), 9)
	for verb, answer := range map[micro.Verb]func() any{
		micro.PingVerb:  func() any { return micro.Ping{ServiceIdentity: s.identity(), Type: micro.PingResponseType} },
		micro.InfoVerb:  func() any { return s.Info() },
		micro.StatsVerb: func() any { return s.Stats() },
	} {
		subject := micro.APIPrefix + "." + verb.String()
		for _, further := range []string{"", "." + s.info.Name, "." + s.info.ID} {
			subject += further
			monitor[subject] = func() ([]byte, error) { return json.Marshal(answer()) }
		}
	}
	return monitor
}

// Info describes the service.
func (s *Service) Info() micro.Info {
	info := s.info
	info.ServiceIdentity = s.identity()
	info.Endpoints = make([]micro.EndpointInfo, 0, len(s.endpoints))
	for _, e := range s.endpoints {
		info.Endpoints = append(info.Endpoints, e.describe())
	}
	return info
}

// Stats returns the counters.
func (s *Service) Stats() micro.Stats {
	stats := micro.Stats{ServiceIdentity: s.identity(), Type: micro.StatsResponseType, Started: *s.started.Load()}
	stats.Endpoints = make([]*micro.EndpointStats, 0, len(s.endpoints))
	for _, e := range s.endpoints {
		stats.Endpoints = append(stats.Endpoints, e.stats())
	}
	return stats
}

// Reset begins to count anew.
func (s *Service) Reset() {
	now := time.Now().UTC()
	s.started.Store(&now)
	for _, e := range s.endpoints {
		e.reset()
	}
}

func (s *Service) identity() micro.ServiceIdentity {
	identity := s.info.ServiceIdentity
	identity.Metadata = maps.Clone(identity.Metadata)
	return identity
}
