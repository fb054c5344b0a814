package publish

import (
	"errors"
	"maps"
	"slices"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// plainHeaders are those of the server's headers that a publisher may set without an option: what a message is and
// under which condition it is stored, and what the server adds to a copy to tell where it came from
// (ADR-8, ADR-28, ADR-31). All others make the server do something: Nats-Rollup purges the subject
// or the stream, Nats-Schedule publishes again and again, Nats-Batch-Id holds the message back,
// Nats-Incr adds it to a counter, Nats-Trace-Only drops it, Nats-Expected-Last-Msg-Id may end a stream with replicas.
// A command that a later server learns must not slip through, so the list is of those that pass.
var plainHeaders = map[string]bool{
	jetstream.MsgIDHeader:                   true,
	jetstream.MsgTTLHeader:                  true,
	jetstream.ExpectedStreamHeader:          true,
	jetstream.ExpectedLastSeqHeader:         true,
	jetstream.ExpectedLastSubjSeqHeader:     true,
	jetstream.ExpectedLastSubjSeqSubjHeader: true,

	"Nats-Stream":             true,
	"Nats-Subject":            true,
	"Nats-Sequence":           true,
	"Nats-Last-Sequence":      true,
	"Nats-Time-Stamp":         true,
	"Nats-Num-Pending":        true,
	"Nats-Msg-Size":           true,
	"Nats-Service-Error":      true,
	"Nats-Service-Error-Code": true,
}

// Check refuses headers that command the server, but for those that are meant.
func Check(op, subject string, header natsgo.Header, meant ...natsgo.Header) error {
	for name := range header {
		isMeant := func(header natsgo.Header) bool { _, is := header[name]; return is }
		if wire.IsServers(name) && !plainHeaders[name] && !slices.ContainsFunc(meant, isMeant) {
			return fault.New(op, subject, fault.ErrReservedHeader, "%s; WithHeader sets it on purpose", name)
		}
	}
	return nil
}

// Header returns the option that sets a header, also one that commands the server. Without values it is none.
func Header(name string, values ...string) jetstream.PublishOpt {
	return failing(jetstream.WithRetryAttempts(0), &optionError{name: name, values: values})
}

// optionError is how Header travels as one of upstream's options, whose parameter upstream does
// not export: it is the error that the option returns.
type optionError struct {
	name   string
	values []string
}

func (o *optionError) Error() string {
	return "nats.WithHeader works with the publish methods of that package only"
}

// failing returns an option that fails with err. It takes its type from like.
func failing[T any](_ func(T) error, err error) func(T) error {
	return func(T) error { return err }
}

// Message returns a message for a stream with what opts add to its header. It shares nothing with the caller
// but data.
func (p *Publisher) Message(op, subject string, header natsgo.Header, data []byte, opts []jetstream.PublishOpt) (*natsgo.Msg, error) {
	own := make(natsgo.Header, len(header)+1) // with room for an ID
	maps.Copy(own, header)
	m := &natsgo.Msg{Subject: subject, Header: own, Data: data}
	if len(opts) == 0 {
		return m, nil
	}
	return m, apply(p.api.JetStream(), op, subject, own, opts)
}

// Set returns a copy of header with what opts add to it, and which they set.
func Set(subject string, header natsgo.Header, opts []jetstream.PublishOpt) (own, set natsgo.Header, err error) {
	js, err := jetstream.New(new(natsgo.Conn)) // that sends nothing
	if err != nil {
		return nil, nil, err
	}
	own, set = maps.Clone(header), make(natsgo.Header)
	if own == nil {
		own = make(natsgo.Header)
	}
	err = apply(js, "publish", subject, own, opts)
	for name, values := range own {
		if before, there := header[name]; !there || !slices.Equal(before, values) {
			set[name] = values
		}
	}
	return own, set, err
}

// optionReply makes upstream stop after it has applied the options.
const optionReply = "-"

// apply adds to header what opts say.
//
// Upstream exports no way to read its options. But before it refuses an asynchronous publish of a
// message that has a reply subject, and before it sends anything, it writes them into the header.
func apply(js jetstream.JetStream, op, subject string, header natsgo.Header, opts []jetstream.PublishOpt) error {
	try := func(opts ...jetstream.PublishOpt) error {
		_, err := js.PublishMsgAsync(&natsgo.Msg{Reply: optionReply, Header: header}, opts...)
		if errors.Is(err, jetstream.ErrAsyncPublishReplySubjectSet) {
			return nil
		}
		return err
	}
	isNil := func(opt jetstream.PublishOpt) bool { return opt == nil }
	if slices.ContainsFunc(opts, isNil) {
		opts = slices.DeleteFunc(slices.Clone(opts), isNil)
	}
	if len(opts) > 1 && try(opts...) == nil {
		return nil
	}
	// One of ours may be among them; one at a time tells which.
	for i := range opts {
		err := try(opts[i : i+1]...)
		ours, isOurs := errors.AsType[*optionError](err)
		switch {
		case isOurs:
			header[ours.name] = ours.values
		case err != nil:
			return fault.New(op, subject, fault.ErrInvalidArgument, "%w", err)
		}
	}
	return subjects.CheckHeader(op, subject, header)
}
