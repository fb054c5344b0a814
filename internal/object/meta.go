package object

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// races bounds how often a writer that was overtaken tries again.
const races = 100

// message returns the message that makes v the metadata of its name, provided that what is there now has
// the given sequence.
func (s *Store) message(v version, replaced uint64) (*natsgo.Msg, error) {
	// The message has a time of its own; other clients may miss the field.
	body, err := json.Marshal(record{v.info, json.RawMessage(`"0001-01-01T00:00:00Z"`), v.move})
	if err != nil {
		return nil, err
	}
	return &natsgo.Msg{
		Subject: metaSubject(v.info.Bucket, v.info.Name),
		Header: natsgo.Header{
			natsgo.MsgRollup:                    {natsgo.MsgRollupSubject},
			jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(replaced, 10)},
		},
		Data: body,
	}, nil
}

// storeMeta makes v the metadata of its name in the place of the version with the given sequence, or returns
// ErrConflict when that is not the last one.
func (s *Store) storeMeta(ctx context.Context, op string, v version, replaced uint64) (uint64, error) {
	m, err := s.message(v, replaced)
	if err != nil {
		return 0, err
	}
	return s.storeMessage(ctx, op, v.info, m)
}

// storeMessage publishes metadata, which its errors call by the object's name. A refusal may come from the
// stream of another domain, or after the storing: whether there is a conflict is seen from what is there.
func (s *Store) storeMessage(ctx context.Context, op string, info *jetstream.ObjectInfo, m *natsgo.Msg) (uint64, error) {
	ctx, cancel := s.conn.Deadline(ctx)
	defer cancel()
	for race := 1; ; race++ {
		ack, _, err := s.publisher.Store(ctx, op, m)
		if err == nil {
			return ack.Sequence, nil
		}
		if !errors.Is(err, fault.ErrConflict) {
			return 0, named(op, info.Bucket, info.Name, err)
		}
		v, failed := s.version(ctx, info.Bucket, info.Name)
		if failed == nil && v.id == m.Header.Get(jetstream.MsgIDHeader) {
			return v.sequence, nil
		}
		expected := strconv.FormatUint(v.sequence, 10) == m.Header.Get(jetstream.ExpectedLastSubjSeqHeader)
		if failed != nil || !expected || race == races || !pause.Sleep(ctx, readPause) {
			return 0, named(op, info.Bucket, info.Name, err)
		}
	}
}

// change replaces the metadata of an object by what change makes of the version that is there, which
// it may refuse. It tries again when another writer was faster.
func (s *Store) change(ctx context.Context, op, name string, change func(version) (*jetstream.ObjectInfo, error)) (*jetstream.ObjectInfo, error) {
	ctx, cancel := s.conn.Deadline(ctx)
	defer cancel()
	for race := 1; ; race++ {
		old, err := s.version(ctx, s.bucket, name)
		if err != nil {
			return nil, err
		}
		info, err := change(old)
		if err != nil {
			return nil, err
		}
		next := version{info: info}
		if next.has(info.NUID) && old.has(info.NUID) { // it is changed, and neither replaced nor deleted
			next.move = old.move
		}
		_, err = s.storeMeta(ctx, op, next, old.sequence)
		if errors.Is(err, fault.ErrConflict) && race < races {
			continue
		}
		if err == nil {
			info.ModTime = time.Now().UTC() // about the server's
		}
		return info, err
	}
}

// purgeSubject removes the messages of a subject up to a sequence, all of them when it is 0, and returns how
// many.
func (s *Store) purgeSubject(ctx context.Context, subject string, upTo uint64) (int, error) {
	question := jetstream.StreamPurgeRequest{Subject: subject}
	if upTo > 0 {
		question.Sequence = upTo + 1
	}
	var answer struct {
		jsapi.Refusal
		Purged int `json:"purged"`
	}
	err := s.api.Ask(ctx, "STREAM.PURGE."+StreamPrefix+s.bucket, question, &answer)
	return answer.Purged, err
}

// purgeWithin removes chunks for as long as ctx lasts.
func (s *Store) purgeWithin(ctx context.Context, nuid string) error {
	_, err := s.purgeSubject(ctx, chunkSubject(s.bucket, nuid), 0)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return err
}

// leaveBehind reports chunks that only a Sweep will remove.
func (s *Store) leaveBehind(subject string, err error) {
	s.reports.LeftBehind(s.bucket, subject, fault.Wrap("purge chunks of", s.bucket, err))
}
