package nats

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ordered"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// The layout of an object store (ADR-20): the stream of a bucket, and the subjects of an object's chunks
// and of its metadata.
const (
	objectStreamPrefix = "OBJ_"
	objectChunkFormat  = "$O.%s.C.%s"
	objectMetaFormat   = "$O.%s.M.%s"
)

func objectChunks(bucket, nuid string) string { return fmt.Sprintf(objectChunkFormat, bucket, nuid) }

func objectMetaSubject(bucket, name string) string {
	return fmt.Sprintf(objectMetaFormat, bucket, base64.URLEncoding.EncodeToString([]byte(name)))
}

// objectName is the inverse of objectMetaSubject, for the encodings of other clients as well.
func objectName(subject string) string {
	token := subject[strings.LastIndexByte(subject, '.')+1:]
	name, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(token, "="))
	if err != nil {
		return token
	}
	return string(name)
}

// objectRecord is an object's metadata as it is stored.
type objectRecord struct {
	*jetstream.ObjectInfo
	ModTime json.RawMessage `json:"mtime"` // in the place of the info's: the message has one
	objectMove
}

// objectMove tells which other name has, or may get, the chunks of an object that is renamed: see rename.
type objectMove struct {
	From string `json:"renamed_from,omitempty"`
	To   string `json:"renamed_to,omitempty"`
}

func (m objectMove) other() string { return cmp.Or(m.From, m.To) }

// objectVersion is the metadata of an object as it is stored, also that of a deleted one. There is no info
// when nothing is stored under the name; the sequence is 0 then.
type objectVersion struct {
	info     *jetstream.ObjectInfo
	move     objectMove
	sequence uint64
	id       string // of the message
	unread   error  // why only a part of info could be read, which another client has written
}

// there tells whether there is an object, be it one that cannot be read.
func (v objectVersion) there() bool { return v.info != nil && !v.info.Deleted }

// live returns the information of an object that is there.
func (v objectVersion) live() (*jetstream.ObjectInfo, error) {
	if !v.there() {
		return nil, jetstream.ErrObjectNotFound
	}
	return v.info, v.unread
}

func (v objectVersion) isLink() bool {
	return v.info != nil && v.info.Opts != nil && v.info.Opts.Link != nil
}

// has tells whether it is an object with the chunks of that NUID.
func (v objectVersion) has(nuid string) bool { return v.there() && v.info.NUID == nuid }

// hasChunks tells whether the object may have chunks, which its NUID names.
func (v objectVersion) hasChunks() bool {
	return v.there() && v.info.NUID != "" && (v.info.Chunks > 0 || v.unread != nil)
}

// readVersion reads a message of metadata. Of what another client has written in its own way it reads what it
// can, and the name from the subject.
func readVersion(bucket string, m wire.Stored) objectVersion {
	record := objectRecord{ObjectInfo: &jetstream.ObjectInfo{}}
	err := json.Unmarshal(m.Data, &record)
	info := record.ObjectInfo
	usable := info.NUID != "" && len(info.NUID) <= subjects.MaxName && !strings.ContainsAny(info.NUID, " .*>\t\r\n")
	v := objectVersion{info: info, move: record.objectMove, sequence: m.Sequence, id: m.Header.Get(jetstream.MsgIDHeader)}
	switch {
	case m.Header.Get(jetstream.MarkerReasonHeader) != "": // the server's, for an object that has expired
		info.Deleted, err = true, nil
	case err == nil && info.Name == "":
		err = errors.New("it has no name")
	case err == nil && !usable && (info.NUID != "" || info.Chunks > 0):
		err = errors.New("its nuid is not usable")
	}
	if !usable {
		info.NUID = "" // never as a filter that purges
	}
	if info.Name == "" {
		info.Name = objectName(m.Subject)
	}
	info.ModTime, info.Bucket = m.Time, bucket // the one that was asked
	if err != nil {
		v.unread = fmt.Errorf("%w: %w", jetstream.ErrBadObjectMeta, err)
	}
	return v
}

// objectVersion asks the leader of the bucket's stream. Upstream asks any replica, which may not know yet
// what the last Put stored.
func (c *Client) objectVersion(ctx context.Context, bucket, name string) (objectVersion, error) {
	m, err := c.api.Stored(ctx, objectStreamPrefix+bucket, wire.Get{LastFor: objectMetaSubject(bucket, name)})
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return objectVersion{}, nil
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return objectVersion{}, fault.Joined{jetstream.ErrBucketNotFound, err}
	case err != nil:
		return objectVersion{}, err
	}
	return readVersion(bucket, m), nil
}

// bucketState is what the stream of a bucket says of itself.
type bucketState struct {
	jsapi.Refusal
	Now    time.Time `json:"ts"`
	Config struct {
		MaxMsgSize int32         `json:"max_msg_size"`
		MaxAge     time.Duration `json:"max_age"`
	} `json:"config"`
	State struct {
		Last     uint64            `json:"last_seq"`
		Subjects map[string]uint64 `json:"subjects"`
	} `json:"state"`
}

// bucketState asks for the state of a bucket, with the number of messages of the subject, if there is one.
func (c *Client) bucketState(ctx context.Context, bucket, subject string) (bucketState, error) {
	question := struct {
		Filter string `json:"subjects_filter,omitempty"`
	}{subject}
	var answer bucketState
	err := c.api.Ask(ctx, "STREAM.INFO."+objectStreamPrefix+bucket, question, &answer)
	return answer, err
}

// storedChunks returns how many chunks of an object the leader of the bucket's stream has.
func (c *Client) storedChunks(ctx context.Context, bucket, nuid string) (uint64, error) {
	subject := objectChunks(bucket, nuid)
	state, err := c.bucketState(ctx, bucket, subject)
	return state.State.Subjects[subject], err
}

// walk calls each with the last message of every subject that the consumer is for, as they are now. Without a
// deadline in ctx, Config.RequestTimeout bounds how long it waits for each of them.
func (s *ObjectStore) walk(ctx context.Context, cfg jetstream.ConsumerConfig, each func(wire.Stored)) error {
	cfg.DeliverPolicy = jetstream.DeliverLastPerSubjectPolicy
	r := ordered.New(s.client.api, ordered.Options{
		Stream: objectStreamPrefix + s.bucket, Config: cfg, Batch: objectWatchBatch, Opened: opened,
		Idle: func(context.Context) error { return errObjectsIdle },
	})
	defer r.Close()
	first, err := r.Start(ctx)
	if err != nil {
		return err
	}
	for more := first.Pending > 0; more; {
		pause, cancel := s.client.deadline(ctx)
		m, meta, err := r.Next(pause)
		cancel()
		switch {
		case errors.Is(err, errObjectsIdle): // what was to come was removed meanwhile
			return nil
		case err != nil:
			return err
		}
		more = meta.NumPending > 0
		each(stored(m, meta))
	}
	return nil
}

// stored is a message as the stream has it, of which a consumer has brought it.
func stored(m *natsgo.Msg, meta *natsgo.MsgMetadata) wire.Stored {
	return wire.Stored{Subject: m.Subject, Sequence: meta.Sequence.Stream, Time: meta.Timestamp, Header: m.Header, Data: m.Data}
}

// versions calls each with the metadata of every object, also of the deleted ones, and as it is stored.
func (s *ObjectStore) versions(ctx context.Context, each func(v objectVersion, stored []byte)) error {
	cfg := jetstream.ConsumerConfig{FilterSubject: objectMetaSubject(s.bucket, "") + ">"}
	return s.walk(ctx, cfg, func(m wire.Stored) { each(readVersion(s.bucket, m), m.Data) })
}
