package object_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/object"
)

// Two clients do something at once with an object that has two names. It is lost only where it was deleted or
// replaced, and then no chunk is left.
func TestBothNamesAtOnce(t *testing.T) {
	t.Parallel()
	const rounds = 5
	s, _, _ := newStore(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	rename := func(name, other string) func(string) error {
		return func(of string) error {
			return s.Describe(ctx, of+name, jetstream.ObjectMeta{Name: of + other})
		}
	}
	deeds := map[string]func(of string) error{
		"rename old to new": rename("old", "new"), "rename old to third": rename("old", "third"),
		"rename new to old": rename("new", "old"), "rename new to third": rename("new", "third"),
		"describe old": rename("old", "old"), "describe new": rename("new", "new"),
	}
	for _, name := range []string{"old", "new"} {
		deeds["delete "+name] = func(of string) error { return s.Delete(ctx, of+name) }
		deeds["replace "+name] = func(of string) error {
			_, err := s.Put(ctx, jetstream.ObjectMeta{Name: of + name}, strings.NewReader("another"), object.Options{})
			return err
		}
		deeds["link "+name] = func(of string) error {
			_, err := s.Link(ctx, of+name, &jetstream.ObjectLink{Bucket: "b"})
			return err
		}
	}
	fine := []error{fault.ErrConflict, jetstream.ErrObjectNotFound, jetstream.ErrUpdateMetaDeleted, jetstream.ErrObjectAlreadyExists}
	all := slices.Sorted(maps.Keys(deeds))
	for i, one := range all {
		for _, other := range all[i:] {
			for round := range rounds {
				what := fmt.Sprint(one, ", ", other, " ", round)
				nuid, err := s.CutRename(ctx, what+"old", what+"new")
				require.NoError(t, err, what)
				var both sync.WaitGroup
				for _, deed := range []string{one, other} {
					both.Go(func() {
						err := deeds[deed](what)
						for _, good := range fine {
							if errors.Is(err, good) {
								err = nil
							}
						}
						assert.NoError(t, err, what)
					})
				}
				both.Wait()
				names, lost := []string{"new", "old", "third"}, true
				for i := range names { // one after the other is deleted, and each time the rest is there
					for _, name := range names[i:] {
						if info, err := s.Info(ctx, what+name, false); err == nil && info.NUID == nuid {
							got, err := s.Bytes(ctx, what+name, object.Options{})
							require.NoError(t, err, what)
							assert.Equal(t, "content", string(got))
							lost = false
						}
					}
					if err := s.Delete(ctx, what+names[i]); !errors.Is(err, jetstream.ErrObjectNotFound) {
						require.NoError(t, err)
					}
				}
				assert.True(t, !lost || strings.Contains(what, "delete") || strings.Contains(what, "replace"), "%s: it is lost", what)
				assert.Eventually(t, func() bool {
					chunks, err := s.StoredChunks(ctx, nuid)
					return err == nil && chunks == 0
				}, patience, time.Millisecond, "%s: chunks are left", what)
			}
		}
	}
}
