package discovery

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// Servers is what discovery knows of the servers. The zero value knows nothing.
type Servers struct {
	mu      sync.Mutex
	urls    []string
	updated time.Time
	refused string
}

// Set records what discovery names.
func (s *Servers) Set(urls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.urls, s.updated = slices.Clone(urls), time.Now()
}

// FallBack records that the configured URLs stand in.
func (s *Servers) FallBack(urls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.urls = slices.Clone(urls)
}

// Get returns the servers and when discovery named them last, which is zero while the configured URLs
// stand in.
func (s *Servers) Get() ([]string, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.urls), s.updated
}

// Refuse records what of the last list could not be used, "" for nothing, and tells whether that is news.
func (s *Servers) Refuse(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.refused
	s.refused = text
	return text != last && text != ""
}

// Are tells whether these are the known servers, in whatever order.
func (s *Servers) Are(urls []string) bool {
	known, _ := s.Get()
	slices.Sort(known)
	return slices.Equal(known, slices.Sorted(slices.Values(urls)))
}

var errMixed = errors.New("ws:// and wss:// cannot be mixed with nats:// and tls://")

// Usable returns the URLs that a connection takes, each once and its scheme in lower case, and what is
// wrong with the others, "" for nothing. Of a list that mixes WebSockets with plain connections, which
// upstream refuses as a whole, those stay that are as the configured ones.
func Usable(urls []string, websocket bool) (usable []string, wrong string) {
	var same, others, refused []string
	refuse := func(raw string, reason error) {
		refused = append(refused, fmt.Sprintf("%q: %v", serverurl.Redact(raw), reason))
	}
	seen := make(map[string]bool, len(urls))
	for _, raw := range urls {
		u, err := serverurl.Parse(raw, websocket)
		url := serverurl.Normal(raw)
		switch {
		case err != nil:
			refuse(raw, err)
		case seen[url]:
		case serverurl.IsWebsocket(u) == websocket:
			same = append(same, url)
		default:
			others = append(others, url)
		}
		seen[url] = true
	}
	if len(same) == 0 {
		same, others = others, nil
	}
	for _, raw := range others {
		refuse(raw, errMixed)
	}
	if len(refused) == 0 {
		return same, ""
	}
	slices.Sort(refused) // a resolver promises no order, and what is told must not change with it
	return same, fmt.Sprintf("%d of the servers are unusable: %s", len(refused), fault.Few(refused, "; ", 5))
}
