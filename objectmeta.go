package nats

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
)

// objectRaces bounds how often a writer that was overtaken tries again.
const objectRaces = 100

// objectMetaMessage returns the message that makes v the metadata of its name, provided that what is there now has
// the given sequence.
func (c *Client) objectMetaMessage(v objectVersion, replaced uint64) (*natsgo.Msg, error) {
	// The message has a time of its own; other clients may miss the field.
	body, err := json.Marshal(objectRecord{v.info, json.RawMessage(`"0001-01-01T00:00:00Z"`), v.move})
	if err != nil {
		return nil, err
	}
	return &natsgo.Msg{
		Subject: objectMetaSubject(v.info.Bucket, v.info.Name),
		Header: natsgo.Header{
			natsgo.MsgRollup:                    {natsgo.MsgRollupSubject},
			jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(replaced, 10)},
		},
		Data: body,
	}, nil
}

// storeMeta makes v the metadata of its name in the place of the version with the given sequence, or returns
// ErrConflict when that is not the last one.
func (c *Client) storeMeta(ctx context.Context, op string, v objectVersion, replaced uint64) (uint64, error) {
	m, err := c.objectMetaMessage(v, replaced)
	if err != nil {
		return 0, err
	}
	return c.storeObjectMessage(ctx, op, v.info, m)
}

// storeObjectMessage publishes metadata, which its errors call by the object's name. A refusal may come from the
// stream of another domain, or after the storing: whether there is a conflict is seen from what is there.
func (c *Client) storeObjectMessage(ctx context.Context, op string, info *jetstream.ObjectInfo, m *natsgo.Msg) (uint64, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	ack, _, err := c.publisher.Store(ctx, op, m)
	if err == nil {
		return ack.Sequence, nil
	}
	if errors.Is(err, ErrConflict) {
		if v, failed := c.objectVersion(ctx, info.Bucket, info.Name); failed == nil && v.id == m.Header.Get(jetstream.MsgIDHeader) {
			return v.sequence, nil
		}
	}
	return 0, objectError(op, info.Bucket, info.Name, err)
}

// objectError names the object in the place of a subject that nobody knows.
func objectError(op, bucket, name string, err error) error {
	target := path(bucket, name)
	var kind error
	if e, ok := err.(*fault.Error); ok { //nolint:errorlint // only the outermost wrapping counts
		kind, err = e.Kind, e.Cause
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return &fault.Error{Op: op, Target: target, Kind: ErrBucketNotFound, Cause: fault.Joined{jetstream.ErrBucketNotFound, err}}
	}
	if kind != nil || err == nil {
		return &fault.Error{Op: op, Target: target, Kind: kind, Cause: err}
	}
	return jsapi.Wrap(op, target, err)
}

// changeObject replaces the metadata of an object by what change makes of the version that is there, which
// it may refuse. It tries again when another writer was faster, and returns the version that was replaced.
func (s *ObjectStore) changeObject(ctx context.Context, op, name string, change func(objectVersion) (*jetstream.ObjectInfo, error)) (objectVersion, *jetstream.ObjectInfo, error) {
	c := s.client
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	for race := 1; ; race++ {
		old, err := c.objectVersion(ctx, s.bucket, name)
		if err != nil {
			return old, nil, err
		}
		info, err := change(old)
		if err != nil {
			return old, nil, err
		}
		next := objectVersion{info: info}
		if next.has(info.NUID) && old.has(info.NUID) { // it is changed, and neither replaced nor deleted
			next.move = old.move
		}
		_, err = c.storeMeta(ctx, op, next, old.sequence)
		if errors.Is(err, ErrConflict) && race < objectRaces {
			continue
		}
		if err == nil {
			info.ModTime = time.Now().UTC() // about the server's
		}
		return old, info, err
	}
}

// purgeSubject removes the messages of a subject up to a sequence, all of them when it is 0, and returns how
// many.
func (s *ObjectStore) purgeSubject(ctx context.Context, subject string, upTo uint64) (int, error) {
	question := struct {
		Filter   string `json:"filter"`
		Sequence uint64 `json:"seq,omitempty"`
	}{Filter: subject}
	if upTo > 0 {
		question.Sequence = upTo + 1
	}
	var answer struct {
		jsapi.Refusal
		Purged int `json:"purged"`
	}
	err := s.client.api.Ask(ctx, "STREAM.PURGE."+objectStreamPrefix+s.bucket, question, &answer)
	return answer.Purged, err
}

// purgeWithin removes chunks for as long as ctx lasts.
func (s *ObjectStore) purgeWithin(ctx context.Context, nuid string) error {
	_, err := s.purgeSubject(ctx, objectChunks(s.bucket, nuid), 0)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return err
}

// leaveBehind reports chunks that only a Sweep will remove.
func (s *ObjectStore) leaveBehind(subject string, err error) {
	c := s.client
	c.log.Warn("object chunks are left behind; Sweep removes them", "bucket", s.bucket, "subject", subject, "error", err)
	c.emit(Event{Type: EventAsyncError, Subject: subject, Err: wrap("purge chunks of", s.bucket, err)})
}
