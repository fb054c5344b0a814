package object

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ordered"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// The layout of an object store (ADR-20): the stream of a bucket, and the subjects of an object's chunks
// and of its metadata.
const (
	StreamPrefix = "OBJ_"
	chunkFormat  = "$O.%s.C.%s"
	metaFormat   = "$O.%s.M.%s"
)

func chunkSubject(bucket, nuid string) string { return fmt.Sprintf(chunkFormat, bucket, nuid) }

// metaSubject is where the metadata of an object is stored.
func metaSubject(bucket, name string) string {
	return fmt.Sprintf(metaFormat, bucket, base64.URLEncoding.EncodeToString([]byte(name)))
}

// Fault says what is wrong with the name of an object, or "" when nothing is: others look its metadata up by subject.
func (s *Store) Fault(name string) string {
	subject := len(metaSubject(s.bucket, "")) + base64.URLEncoding.EncodedLen(len(name))
	question := len(s.api.Subject("DIRECT.GET.")) + len(StreamPrefix) + len(s.bucket) + 1 + subject
	return s.conn.LineFault(question + s.conn.LineRoom())
}

// nameOf is the inverse of metaSubject, for the encodings of other clients as well. It returns the metadata's own name,
// or the last token of the subject, where that is no encoding.
func nameOf(subject, own string) string {
	token := subject[strings.LastIndexByte(subject, '.')+1:]
	name, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(token, "="))
	if err != nil {
		return cmp.Or(own, token)
	}
	return string(name)
}

// record is an object's metadata as it is stored.
type record struct {
	*jetstream.ObjectInfo
	ModTime json.RawMessage `json:"mtime"` // in the place of the info's: the message has one
	moved
}

// moved tells which other name has, or may get, the chunks of an object that is renamed: see rename.
type moved struct {
	From   string `json:"renamed_from,omitempty"`
	To     string `json:"renamed_to,omitempty"`
	Undone string `json:"rename_undone,omitempty"` // it was going there
}

func (m moved) other() string { return cmp.Or(m.From, m.To, m.Undone) }

// version is the metadata of an object as it is stored, also that of a deleted one. There is no info
// when nothing is stored under the name; the sequence is 0 then.
type version struct {
	info     *jetstream.ObjectInfo
	move     moved
	sequence uint64
	id       string // of the message
	unread   error  // why only a part of info could be read, which another client has written
}

// there tells whether there is an object, be it one that cannot be read.
func (v version) there() bool { return v.info != nil && !v.info.Deleted }

// live returns the information of an object that is there.
func (v version) live() (*jetstream.ObjectInfo, error) {
	if !v.there() {
		return nil, jetstream.ErrObjectNotFound
	}
	return v.info, v.unread
}

func (v version) isLink() bool {
	return v.info != nil && v.info.Opts != nil && v.info.Opts.Link != nil
}

// has tells whether it is an object with the chunks of that NUID.
func (v version) has(nuid string) bool { return v.there() && nuid != "" && v.info.NUID == nuid }

// hasChunks tells whether the object may have chunks, which its NUID names.
func (v version) hasChunks() bool {
	return v.there() && v.info.NUID != "" && (v.info.Chunks > 0 || v.unread != nil)
}

// readVersion reads a message of metadata. Of what another client has written in its own way it reads what it
// can, and the name from the subject.
func readVersion(bucket string, m wire.Stored) version {
	record := record{ObjectInfo: &jetstream.ObjectInfo{}}
	info := record.ObjectInfo
	var err error
	if m.Header.Get(jetstream.MarkerReasonHeader) != "" { // the server's, for an object that has expired
		info.Deleted, info.Name = true, nameOf(m.Subject, "")
	} else {
		err = json.Unmarshal(m.Data, &record)
	}
	usable := len(info.NUID) <= subjects.MaxName && !strings.Contains(info.NUID, ".") && subjects.Fault(info.NUID, false) == ""
	v := version{info: info, move: record.moved, sequence: m.Sequence, id: m.Header.Get(jetstream.MsgIDHeader)}
	switch {
	case err == nil && info.Name == "":
		err = errors.New("it has no name")
	case err == nil && !usable && (info.NUID != "" || info.Chunks > 0):
		err = errors.New("its nuid is not usable")
	}
	if !usable {
		info.NUID = "" // never as a filter that purges
	}
	info.Name = nameOf(m.Subject, info.Name)   // in JSON, what is not UTF-8 is another name
	info.ModTime, info.Bucket = m.Time, bucket // the one that was asked
	if err != nil {
		v.unread = fmt.Errorf("%w: %w", jetstream.ErrBadObjectMeta, err)
	}
	return v
}

// version asks the leader of the bucket's stream. Upstream asks any replica, which may not know yet
// what the last Put stored.
func (s *Store) version(ctx context.Context, bucket, name string) (version, error) {
	m, err := s.api.Stored(ctx, StreamPrefix+bucket, wire.Get{LastFor: metaSubject(bucket, name)})
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return version{}, nil
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return version{}, fault.Joined{jetstream.ErrBucketNotFound, err}
	case err != nil:
		return version{}, err
	}
	return readVersion(bucket, m), nil
}

// state asks for the configuration and the state of the bucket's stream.
func (s *Store) state(ctx context.Context) (*jetstream.StreamInfo, error) {
	return s.api.StreamInfo(ctx, StreamPrefix+s.bucket)
}

// storedChunks returns how many chunks of an object the leader of the bucket's stream has.
func (s *Store) storedChunks(ctx context.Context, bucket, nuid string) (uint64, error) {
	subject := chunkSubject(bucket, nuid)
	counts, err := s.api.Subjects(ctx, StreamPrefix+bucket, subject)
	return counts[subject], err
}

// walk calls each with the last message of every subject that the consumer is for, as they are now. Without a
// deadline in ctx, Config.RequestTimeout bounds how long it waits for each of them.
func (s *Store) walk(ctx context.Context, cfg jetstream.ConsumerConfig, each func(wire.Stored)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	leave, err := s.life.Join(func() { cancel(fault.ErrClosed) })
	if err != nil {
		return err
	}
	defer leave()
	cfg.DeliverPolicy = jetstream.DeliverLastPerSubjectPolicy
	r := ordered.New(s.api, ordered.Options{
		Stream: StreamPrefix + s.bucket, Config: cfg, Batch: watchBatch, Opened: ordered.Opening.Same,
		Idle: func(context.Context) error { return errIdle },
	})
	defer r.Close()
	first, err := r.Start(ctx)
	if err != nil {
		return err
	}
	for more := first.Pending > 0; more; {
		m, d, err := r.Ready(ctx)
		if m == nil && err == nil {
			pause, stop := s.conn.Deadline(ctx)
			m, d, err = r.Next(pause)
			stop()
		}
		switch {
		case errors.Is(err, errIdle): // what was to come was removed meanwhile
			return nil
		case err != nil:
			return err
		}
		more = d.Pending > 0
		each(d.Store(m))
	}
	return nil
}

// versions calls each with the metadata of every object, also of the deleted ones, and as it is stored. Who is replaced
// meanwhile may come twice.
func (s *Store) versions(ctx context.Context, each func(v version, stored wire.Stored)) error {
	cfg := jetstream.ConsumerConfig{FilterSubject: metaSubject(s.bucket, "") + ">"}
	return s.walk(ctx, cfg, func(m wire.Stored) { each(readVersion(s.bucket, m), m) })
}

// List returns the objects that are there, or also the deleted ones.
func (s *Store) List(ctx context.Context, deleted bool) (objects []*jetstream.ObjectInfo, err error) {
	latest := make(map[string]version)
	err = s.versions(ctx, func(v version, stored wire.Stored) { latest[stored.Subject] = v })
	if err != nil {
		return nil, named("list objects of", s.bucket, "", err)
	}
	for _, v := range slices.SortedFunc(maps.Values(latest), func(a, b version) int { return cmp.Compare(a.sequence, b.sequence) }) {
		if v.there() || deleted {
			objects = append(objects, v.info)
		}
	}
	return objects, nil
}
