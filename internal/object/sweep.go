package object

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// claimSuffix, after the subject of an upload's chunks, is where a Sweep says that it is about to remove them.
const claimSuffix = ".sweep"

// Sweep removes the chunks of uploads that have no object and are older, and returns how many.
func (s *Store) Sweep(ctx context.Context, olderThan time.Duration) (int, error) {
	const op = "sweep"
	if olderThan < unwatched {
		return 0, fault.New(op, s.bucket, fault.ErrInvalidArgument, "olderThan is %v, and must be at least %v", olderThan, unwatched)
	}
	removed, err := s.sweep(ctx, olderThan)
	if err != nil {
		return removed, named(op, s.bucket, "", err)
	}
	return removed, nil
}

func (s *Store) sweep(ctx context.Context, olderThan time.Duration) (int, error) {
	uploads, orphans, err := s.uploads(ctx, olderThan)
	if err != nil || len(orphans) == 0 {
		return 0, err
	}
	return s.removeOrphans(ctx, uploads, orphans)
}

// sweepAway is Sweep for the chunks of some uploads, whose ends are not known or that have been replaced.
func (s *Store) sweepAway(ctx context.Context, nuids ...string) error {
	orphans := make(map[string]uint64, len(nuids))
	for _, nuid := range nuids {
		orphans[nuid] = 0
	}
	_, err := s.removeOrphans(ctx, nuids, orphans)
	return err
}

// removeOrphans removes those of the orphans that no object has, up to a sequence, and returns how many chunks.
func (s *Store) removeOrphans(ctx context.Context, uploads []string, orphans map[string]uint64) (removed int, err error) {
	// First the chunks, then the objects: an upload that ends in between is seen as an object. And once more when the
	// chunks are claimed: an upload that ends after that sees the claim. Besides, an object that is renamed while the
	// list is made may be in neither place.
	err = s.spare(ctx, uploads, orphans)
	claims := make(map[string]uint64, len(orphans))
	defer s.soon(ctx, chunkSubject(s.bucket, "*"+claimSuffix), func(ctx context.Context) (err error) {
		for subject, claim := range claims {
			if err == nil {
				_, err = s.purgeSubject(ctx, subject, claim)
			}
		}
		return err
	})
	for nuid := range orphans {
		if err != nil {
			return 0, err
		}
		err = s.claim(ctx, nuid, orphans, claims)
	}
	if err == nil && len(orphans) > 0 {
		err = s.spare(ctx, uploads, orphans)
	}
	for nuid, last := range orphans {
		if err == nil {
			err = fault.Ended(ctx)
		}
		if err != nil {
			break
		}
		var n int
		n, err = s.purgeSubject(ctx, chunkSubject(s.bucket, nuid), last)
		if removed += n; n > 0 {
			s.reports.Swept(s.bucket, nuid, n)
		}
	}
	return removed, err
}

// claim says that the chunks are going to be removed, or takes them out of orphans when another Sweep has said so. In a
// full bucket, where no upload can end, it need not be said.
func (s *Store) claim(ctx context.Context, nuid string, orphans, claims map[string]uint64) error {
	subject := chunkSubject(s.bucket, nuid) + claimSuffix
	ctx, cancel := s.conn.Deadline(ctx)
	defer cancel()
	ack, _, err := s.publisher.Store(ctx, "sweep", &natsgo.Msg{Subject: subject, Header: natsgo.Header{
		jetstream.ExpectedLastSubjSeqHeader: {"0"},
	}})
	switch {
	case err == nil:
		claims[subject] = ack.Sequence
	case errors.Is(err, fault.ErrConflict):
		delete(orphans, nuid)
	case !fault.IsFull(err):
		return err
	}
	return nil
}

// uploads returns the NUIDs of all that has chunks and, of those whose last chunk is old, the sequence of that one. It
// removes the claims of Sweeps that were killed.
func (s *Store) uploads(ctx context.Context, olderThan time.Duration) (all []string, old map[string]uint64, err error) {
	bucket, err := s.state(ctx)
	if err != nil {
		return nil, nil, err
	}
	prefix, stale := chunkSubject(s.bucket, ""), make(map[string]uint64)
	old = make(map[string]uint64)
	err = s.walk(ctx, jetstream.ConsumerConfig{FilterSubject: prefix + ">", HeadersOnly: true}, func(m wire.Stored) {
		nuid := strings.TrimPrefix(m.Subject, prefix)
		isOld := bucket.TimeStamp.Sub(m.Time) >= olderThan
		switch {
		case subjects.Fault(nuid, false) != "": // some clients can store on wildcards, which match others
		case !strings.Contains(nuid, "."):
			all = append(all, nuid)
			if delete(old, nuid); isOld { // more than the last chunk comes of what grows meanwhile
				old[nuid] = m.Sequence
			}
		case isOld && strings.HasSuffix(nuid, claimSuffix):
			stale[m.Subject] = m.Sequence
		}
	})
	for subject, claim := range stale {
		if err == nil {
			_, err = s.purgeSubject(ctx, subject, claim)
		}
	}
	return all, old, err
}

// spare takes out of orphans what objects have, also those whose metadata cannot be read, but for the NUID. When not
// even that can be found, any of the orphans may be such an object's.
func (s *Store) spare(ctx context.Context, uploads []string, orphans map[string]uint64) error {
	var doubt error
	err := s.versions(ctx, func(v version, stored wire.Stored) {
		switch {
		case !v.there():
		case v.info.NUID != "" || v.unread == nil:
			delete(orphans, v.info.NUID)
		default:
			found := false
			for _, nuid := range uploads {
				if bytes.Contains(stored.Data, []byte(nuid)) {
					delete(orphans, nuid)
					found = true
				}
			}
			if !found {
				doubt = fmt.Errorf("the chunks of %.100q cannot be told, so all are left; replace it or delete it: %w", v.info.Name, v.unread)
			}
		}
	})
	return cmp.Or(err, doubt)
}
