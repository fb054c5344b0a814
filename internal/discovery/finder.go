package discovery

import (
	"context"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// Reports takes what no caller sees.
type Reports interface {
	// FellBack is told why the configured servers stand in.
	FellBack(ctx context.Context, err error)
	// Skipped is told what of a list cannot be used.
	Skipped(wrong string)
	// Ended is told of a resolver that has stopped telling of servers, and is asked again.
	Ended(err error)
	// Unusable is told of a list that cannot be used at all.
	Unusable(err error)
	// Changed is told that other servers are used.
	Changed(urls []string)
}

// Finder finds the servers of a client.
type Finder struct {
	Servers
	Configured []string
	Resolver   Resolver      // nil where those are all
	Within     time.Duration // of one question to it
	Reports    Reports
}

// Watches tells whether the resolver tells of changes.
func (f *Finder) Watches() bool {
	_, watches := f.Resolver.(Watcher)
	return watches
}

// Find returns the URLs to dial. Where the resolver fails they are the last known ones, or the configured ones, so that
// the client can start anyway: its error is always nil.
func (f *Finder) Find(ctx context.Context) ([]string, error) {
	if f.Resolver == nil {
		return f.Configured, nil
	}
	within := f.Within
	if deadline, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(deadline)/2) // the rest is for the servers
	}
	urls, err := Ask(ctx, f.Resolver, within)
	if err == nil {
		urls, err = f.usable(urls)
	}
	if err == nil {
		f.Set(urls)
		return urls, nil
	}
	known, _ := f.Get()
	if known == nil {
		f.Reports.FellBack(ctx, err)
		f.FallBack(f.Configured)
		known = f.Configured
	}
	return known, nil
}

// Follow asks the resolver for changes, each of which use takes, until ctx ends.
func (f *Finder) Follow(ctx context.Context, use func(urls []string) error) {
	take := func(named []string) { f.take(named, use) }
	if _, named := f.Get(); f.Watches() && named.IsZero() { // Watch may tell of changes alone
		if urls, err := Ask(ctx, f.Resolver, f.Within); err == nil {
			take(urls)
		}
	}
	Follow(ctx, f.Resolver, f.Within, take, f.Reports.Ended)
}

func (f *Finder) take(named []string, use func(urls []string) error) {
	urls, err := f.usable(named)
	known := err == nil && f.Are(urls)
	if err == nil && !known {
		err = use(urls)
	}
	if err != nil {
		f.Reports.Unusable(err)
		return
	}
	if f.Set(urls); !known {
		f.Reports.Changed(urls)
	}
}

// usable returns what of a resolver's list can be used, which is an error only when nothing can.
func (f *Finder) usable(urls []string) ([]string, error) {
	first, err := serverurl.Parse(f.Configured[0], false)
	good, wrong := Usable(urls, err == nil && serverurl.IsWebsocket(first))
	if len(good) == 0 {
		return nil, fault.New("discover", "", fault.ErrInvalidConfig, "%s", wrong)
	}
	if f.Refuse(wrong) {
		f.Reports.Skipped(wrong)
	}
	return good, nil
}
