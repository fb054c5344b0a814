package nats

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// The layout of an object store (ADR-20): the stream of a bucket, and the subjects of an object's chunks
// and of its metadata.
const (
	objectStreamPrefix = "OBJ_"
	objectChunkFormat  = "$O.%s.C.%s"
	objectMetaFormat   = "$O.%s.M.%s"
)

// objectRaces bounds how often a writer that was overtaken tries again.
const objectRaces = 100

func objectChunks(bucket, nuid string) string { return fmt.Sprintf(objectChunkFormat, bucket, nuid) }

func objectMetaSubject(bucket, name string) string {
	return fmt.Sprintf(objectMetaFormat, bucket, base64.URLEncoding.EncodeToString([]byte(name)))
}

// objectVersion is the metadata of an object as it is stored, also that of a deleted one. There is no info
// when nothing is stored under the name; the sequence is 0 then.
type objectVersion struct {
	info     *jetstream.ObjectInfo
	sequence uint64
}

// live returns the information of an object that is there.
func (v objectVersion) live() (*jetstream.ObjectInfo, error) {
	if v.info == nil || v.info.Deleted {
		return nil, jetstream.ErrObjectNotFound
	}
	return v.info, nil
}

func (v objectVersion) isLink() bool {
	return v.info != nil && v.info.Opts != nil && v.info.Opts.Link != nil
}

// objectVersion asks the leader of the bucket's stream. Upstream asks any replica, which may not know yet
// what the last Put stored.
func (c *Client) objectVersion(ctx context.Context, bucket, name string) (objectVersion, error) {
	message, err := c.lastMessage(ctx, objectStreamPrefix+bucket, objectMetaSubject(bucket, name))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return objectVersion{}, nil
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return objectVersion{}, fault.Joined{jetstream.ErrBucketNotFound, err}
	case err != nil:
		return objectVersion{}, err
	}
	info := &jetstream.ObjectInfo{}
	if err := json.Unmarshal(message.Data, info); err != nil || strings.ContainsAny(info.NUID, " .*>\t\r\n") {
		return objectVersion{}, jetstream.ErrBadObjectMeta // never as a filter that purges
	}
	info.ModTime, info.Bucket = message.Time, bucket // the one that was asked
	return objectVersion{info, message.Sequence}, nil
}

// storedMessage is a message of a stream, as its leader has it.
type storedMessage struct {
	Sequence uint64    `json:"seq"`
	Data     []byte    `json:"data"`
	Time     time.Time `json:"time"`
}

// lastMessage returns the last message of a subject, or jetstream.ErrMsgNotFound.
func (c *Client) lastMessage(ctx context.Context, stream, subject string) (storedMessage, error) {
	var answer struct {
		jsapi.Refusal
		Message storedMessage `json:"message"`
	}
	err := c.api.Ask(ctx, "STREAM.MSG.GET."+stream, wire.Get{LastFor: subject}, &answer)
	return answer.Message, err
}

// lastSequence returns the sequence of the stream's last message.
func (c *Client) lastSequence(ctx context.Context, stream string) (uint64, error) {
	var answer struct {
		jsapi.Refusal
		State struct {
			Last uint64 `json:"last_seq"`
		} `json:"state"`
	}
	err := c.api.Ask(ctx, "STREAM.INFO."+stream, struct{}{}, &answer)
	return answer.State.Last, err
}

// storedChunks returns how many chunks of an object the leader of the bucket's stream has.
func (c *Client) storedChunks(ctx context.Context, bucket, nuid string) (uint64, error) {
	subject := objectChunks(bucket, nuid)
	subjects, _, err := c.countSubjects(ctx, bucket, subject)
	return subjects[subject], err
}

// countSubjects returns how many messages each subject has that filter matches, and what time it is on the
// server.
func (c *Client) countSubjects(ctx context.Context, bucket, filter string) (map[string]uint64, time.Time, error) {
	var question struct {
		Filter string `json:"subjects_filter"`
		Offset int    `json:"offset"`
	}
	question.Filter = filter
	found := make(map[string]uint64)
	for {
		var answer struct {
			jsapi.Refusal
			Total int       `json:"total"`
			Now   time.Time `json:"ts"`
			State struct {
				Subjects map[string]uint64 `json:"subjects"`
			} `json:"state"`
		}
		if err := c.api.Ask(ctx, "STREAM.INFO."+objectStreamPrefix+bucket, &question, &answer); err != nil {
			return nil, time.Time{}, err
		}
		for subject, n := range answer.State.Subjects {
			found[subject] = n
		}
		question.Offset += len(answer.State.Subjects)
		if len(answer.State.Subjects) == 0 || question.Offset >= answer.Total {
			return found, answer.Now, nil
		}
	}
}

// objectMetaMessage returns the message that makes info the metadata of its name, provided that what is
// there now has the given sequence.
func (c *Client) objectMetaMessage(info *jetstream.ObjectInfo, replaced uint64) (*natsgo.Msg, error) {
	own := *info
	own.ModTime = time.Time{} // the message has one
	body, err := json.Marshal(&own)
	if err != nil {
		return nil, err
	}
	return &natsgo.Msg{
		Subject: objectMetaSubject(info.Bucket, info.Name),
		Header: natsgo.Header{
			natsgo.MsgRollup:                    {natsgo.MsgRollupSubject},
			jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(replaced, 10)},
			jetstream.MsgIDHeader:               {c.msgIDs.next()},
		},
		Data: body,
	}, nil
}

// storeMeta makes info the metadata of its name in the place of the version with the given sequence, or
// returns ErrConflict when that is not the last one.
func (c *Client) storeMeta(ctx context.Context, op string, info *jetstream.ObjectInfo, replaced uint64) (uint64, error) {
	m, err := c.objectMetaMessage(info, replaced)
	if err != nil {
		return 0, err
	}
	return c.storeObjectMessage(ctx, op, info, m)
}

// storeObjectMessage publishes a message of an object under whose name its errors go.
func (c *Client) storeObjectMessage(ctx context.Context, op string, info *jetstream.ObjectInfo, m *natsgo.Msg) (uint64, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	ack, err := c.store(ctx, op, m)
	if err != nil {
		return 0, objectError(op, info.Bucket, info.Name, err)
	}
	return ack.Sequence, nil
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
		_, err = c.storeMeta(ctx, op, info, old.sequence)
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

// purge removes chunks that no object needs, also when ctx has ended: beside the caller when it takes long.
func (s *ObjectStore) purge(ctx context.Context, nuid string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), objectCleanup)
	defer cancel()
	if s.purgeWithin(ctx, nuid) == nil {
		return
	}
	s.afterwards(objectChunks(s.bucket, nuid), func(ctx context.Context) error { return s.purgeWithin(ctx, nuid) })
}

// purgeWithin is purge for as long as ctx lasts.
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
