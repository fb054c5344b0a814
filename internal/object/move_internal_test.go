package object

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

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// cutRename stores an object under both names, as a rename leaves it that is cut before its last step.
func cutRename(ctx context.Context, t *testing.T, s *Store, name, other string) (nuid string) {
	t.Helper()
	info, err := s.Put(ctx, jetstream.ObjectMeta{Name: name}, strings.NewReader("content"), Options{})
	require.NoError(t, err)
	v, err := s.version(ctx, s.bucket, name)
	require.NoError(t, err)
	_, err = s.storeMeta(ctx, opPut, version{info: v.info, move: moved{To: other}}, v.sequence)
	require.NoError(t, err)
	renamed := *info
	renamed.Name = other
	_, err = s.storeMeta(ctx, opPut, version{info: &renamed, move: moved{From: name}}, 0)
	require.NoError(t, err)
	return info.NUID
}

// Two clients do something at once with an object that has two names. It is lost only where it was deleted or
// replaced, and then no chunk is left.
func TestBothNamesAtOnce(t *testing.T) {
	t.Parallel()
	const patience, rounds = 20 * time.Second, 5
	api, err := jsapi.New(conntest.Open(t, natstest.RunServer(t).URL(), nil), jsapi.Options{Timeout: patience})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	life := lifecycle.New()
	t.Cleanup(life.End)
	_, err = api.JetStream().CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "b", Storage: jetstream.MemoryStorage})
	require.NoError(t, err)
	s := Open(api, publish.New(life.Context(), api, patience), life, "b", patience, nil)
	rename := func(name, other string) func(string) error {
		return func(object string) error {
			return s.Describe(ctx, object+name, jetstream.ObjectMeta{Name: object + other})
		}
	}
	deeds := map[string]func(object string) error{
		"rename old to new": rename("old", "new"), "rename old to third": rename("old", "third"),
		"rename new to old": rename("new", "old"), "rename new to third": rename("new", "third"),
		"describe old": rename("old", "old"), "describe new": rename("new", "new"),
	}
	for _, name := range []string{"old", "new"} {
		deeds["delete "+name] = func(object string) error { return s.Delete(ctx, object+name) }
		deeds["replace "+name] = func(object string) error {
			_, err := s.Put(ctx, jetstream.ObjectMeta{Name: object + name}, strings.NewReader("another"), Options{})
			return err
		}
		deeds["link "+name] = func(object string) error {
			_, err := s.Link(ctx, object+name, &jetstream.ObjectLink{Bucket: "b"})
			return err
		}
	}
	fine := []error{fault.ErrConflict, jetstream.ErrObjectNotFound, jetstream.ErrUpdateMetaDeleted, jetstream.ErrObjectAlreadyExists}
	all := slices.Sorted(maps.Keys(deeds))
	for i, one := range all {
		for _, other := range all[i:] {
			for round := range rounds {
				what := fmt.Sprint(one, ", ", other, " ", round)
				nuid := cutRename(ctx, t, s, what+"old", what+"new")
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
						v, err := s.version(ctx, "b", what+name)
						require.NoError(t, err)
						if v.has(nuid) {
							got, err := s.Bytes(ctx, what+name, Options{})
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
					chunks, err := s.storedChunks(ctx, "b", nuid)
					return err == nil && chunks == 0
				}, patience, time.Millisecond, "%s: chunks are left", what)
			}
		}
	}
}
