package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Errors of the connection and the client's life.
var (
	// ErrClosed is returned by every call on a client, or on a handle of it, after Close or Shutdown.
	ErrClosed = errors.New("client is closed")
	// ErrNotConnected is returned when no server could be reached within the call's time.
	// Nothing was sent, so the call may be repeated.
	ErrNotConnected = errors.New("not connected")
	// ErrConnectionLost is returned when the connection broke while a request was in flight and no
	// answer came in time. The request may have been handled; the caller decides whether to repeat it.
	ErrConnectionLost = errors.New("connection lost while the request was in flight")
	// ErrBufferFull is returned by a publish while disconnected when the reconnect buffer
	// (reconnect_buffer_size) is full.
	ErrBufferFull = errors.New("reconnect buffer is full")
	// ErrUnflushed is returned by Close and Shutdown when published bytes never reached a server.
	ErrUnflushed = errors.New("published data did not reach the server")
	// ErrDrainTimeout is returned by Close, Shutdown and Subscription.Drain when handlers or
	// messages were left when the time was up.
	ErrDrainTimeout = errors.New("draining did not finish in time")
	// ErrAuthorization is returned when the server refuses the credentials.
	ErrAuthorization = errors.New("authorization refused")
	// ErrPermission is returned when the server denies the subject to this user.
	ErrPermission = errors.New("permission denied")
)

// Errors of the arguments of a call. They are returned before anything is sent.
var (
	// ErrInvalidConfig is returned for a Config that cannot work; the text names every key and the
	// reason.
	ErrInvalidConfig = errors.New("invalid configuration")
	// ErrInvalidArgument is returned for an argument that no server would accept, such as a nil
	// handler, a nil message, or a stream name with a dot.
	ErrInvalidArgument = errors.New("invalid argument")
	// ErrInvalidSubject is returned for a subject that NATS cannot route; the text tells the fault.
	ErrInvalidSubject = errors.New("invalid subject")
	// ErrInvalidHeader is returned for a header name or value that would break the protocol.
	ErrInvalidHeader = errors.New("invalid header")
	// ErrReservedHeader is returned by a publish to a stream for a header that the server takes for
	// a command, such as Nats-Rollup, when no option asks for it; see WithHeader.
	ErrReservedHeader = errors.New("header is a command to the server")
	// ErrPayloadTooLarge is returned for a message over the server's max_payload or the stream's
	// or bucket's message size limit.
	ErrPayloadTooLarge = errors.New("payload too large")
)

// Errors of requests and messages.
var (
	// ErrTimeout is returned when an answer did not come in time.
	ErrTimeout = errors.New("timed out")
	// ErrNoResponders is returned at once by a request on whose subject nobody listens.
	ErrNoResponders = errors.New("no responders")
	// ErrNoReply is returned by Respond and its kin on a message whose sender waits for no answer.
	ErrNoReply = errors.New("message asks for no reply")
	// ErrNotJetStream is returned by acknowledgements and Metadata on a message that did not come
	// from a JetStream consumer.
	ErrNotJetStream = errors.New("not a JetStream message")
	// ErrAlreadyAcked is returned by the second final acknowledgement (Ack, AckSync, Nak,
	// NakWithDelay, Term) of a message.
	ErrAlreadyAcked = errors.New("message is already acknowledged")
	// ErrLateAck is returned by AckMessage when the message was held for longer than its consumer's
	// ack wait: the acknowledgement holds, but another consumer may have got the message as well.
	ErrLateAck = errors.New("acknowledged after the ack wait")
	// ErrSlowConsumer is reported when a subscription's pending limits are exceeded and messages
	// are dropped.
	ErrSlowConsumer = errors.New("slow consumer, messages dropped")
	// ErrUnsubscribed is what Subscription.Err returns after Unsubscribe or Drain.
	ErrUnsubscribed = errors.New("unsubscribed")
	// ErrStopped is what Consumption.Err returns after Stop.
	ErrStopped = errors.New("stopped")
	// ErrHandlerPanic is reported when a handler panicked, and the text holds the panic's value, or
	// when it ended its goroutine (runtime.Goexit, as testing's FailNow does), which the text says.
	ErrHandlerPanic = errors.New("handler panicked")
)

// Errors of JetStream, key-value and object stores.
var (
	// ErrJetStreamDisabled is returned by every JetStream, key-value and object call when
	// Config.JetStreamEnabled is false, and when the account has no JetStream. Where no server has
	// it, nobody answers the call: that is ErrNoResponders, and ErrNoStream for a publish.
	ErrJetStreamDisabled = errors.New("JetStream is not enabled")
	// ErrNoStream is returned by a publish to a subject that no stream stores.
	ErrNoStream = errors.New("no stream stores the subject")
	// ErrStreamNotFound is returned when the stream does not exist.
	ErrStreamNotFound = errors.New("stream not found")
	// ErrStreamFull is returned by a publish to a stream whose limits are reached and that discards
	// new messages.
	ErrStreamFull = errors.New("stream is full")
	// ErrConsumerNotFound is returned when the consumer does not exist.
	ErrConsumerNotFound = errors.New("consumer not found")
	// ErrBucketNotFound is returned when the key-value or object bucket does not exist.
	ErrBucketNotFound = errors.New("bucket not found")
	// ErrKeyNotFound is returned when the key does not exist or was deleted.
	ErrKeyNotFound = errors.New("key not found")
	// ErrObjectNotFound is returned when the object does not exist or was deleted.
	ErrObjectNotFound = errors.New("object not found")
	// ErrObjectCorrupt is returned when an object's bytes do not match its stored digest or size.
	ErrObjectCorrupt = errors.New("object is corrupt")
	// ErrAlreadyExists is returned when a stream, consumer or bucket of that name exists with
	// another configuration, or a key exists that was to be created.
	ErrAlreadyExists = errors.New("already exists")
	// ErrLockLost is returned by Lock.Unlock, and is the cause of Lock.Context's end, when the lease
	// ended before: somebody else may have held the lock meanwhile.
	ErrLockLost = errors.New("lock is lost")
	// ErrConflict is returned when an expected sequence, revision or message ID is no longer the last
	// one: another writer was faster.
	ErrConflict = errors.New("conflicting revision")
)

// opError says which operation failed on what. Is and As see both the sentinel and the cause.
type opError struct {
	op     string // "publish"
	target string // the subject, stream, bucket or key; may be empty
	kind   error  // a sentinel of this package; may be nil
	cause  error  // upstream's error or a reason; may be nil
}

func (e *opError) Error() string {
	text := e.op
	if e.target != "" {
		text += fmt.Sprintf(" %q", e.target)
	}
	if e.kind != nil {
		text += ": " + e.kind.Error()
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

func (e *opError) Unwrap() []error {
	errs := make([]error, 0, 2)
	if e.kind != nil {
		errs = append(errs, e.kind)
	}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	return errs
}

// joined is errors.Join on one line.
type joined []error

func (j joined) Error() string {
	texts := make([]string, 0, len(j))
	for _, err := range j {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (j joined) Unwrap() []error { return j }

// wrap gives err its operation, its target and the sentinel that fits. It returns nil for nil and
// leaves an error alone that has been wrapped already.
func wrap(op, target string, err error) error {
	if err == nil {
		return nil
	}
	if wrapped, ok := err.(*opError); ok { //nolint:errorlint // only the outermost wrapping counts
		return wrapped
	}
	return &opError{op: op, target: target, kind: sentinelOf(err), cause: err}
}

// fail builds an error of this package's own making.
func fail(op, target string, kind error, reason string, args ...any) error {
	e := &opError{op: op, target: target, kind: kind}
	if reason != "" {
		e.cause = fmt.Errorf(reason, args...)
	}
	return e
}

// upstreamSentinels is searched in order: the specific error of a pair that wrap each other is first.
var upstreamSentinels = []struct{ upstream, ours error }{
	{natsgo.ErrConnectionClosed, ErrClosed},
	{natsgo.ErrConnectionDraining, ErrClosed},
	{natsgo.ErrDisconnected, ErrConnectionLost},
	{natsgo.ErrNoServers, ErrNotConnected},
	{natsgo.ErrReconnectBufExceeded, ErrBufferFull},
	{natsgo.ErrAuthorization, ErrAuthorization},
	{natsgo.ErrAuthExpired, ErrAuthorization},
	{natsgo.ErrAuthRevoked, ErrAuthorization},
	{natsgo.ErrAccountAuthExpired, ErrAuthorization},
	{natsgo.ErrPermissionViolation, ErrPermission},
	{natsgo.ErrMaxPayload, ErrPayloadTooLarge},
	{natsgo.ErrBadSubject, ErrInvalidSubject},
	{natsgo.ErrSlowConsumer, ErrSlowConsumer},
	{natsgo.ErrMsgAlreadyAckd, ErrAlreadyAcked},
	{jetstream.ErrJetStreamNotEnabledForAccount, ErrJetStreamDisabled},
	{jetstream.ErrJetStreamNotEnabled, ErrJetStreamDisabled},
	{jetstream.ErrNoStreamResponse, ErrNoStream},
	{jetstream.ErrInvalidKey, ErrInvalidArgument},
	{jetstream.ErrInvalidBucketName, ErrInvalidArgument},
	{jetstream.ErrInvalidStoreName, ErrInvalidArgument},
	{jetstream.ErrNameRequired, ErrInvalidArgument},
	{jetstream.ErrObjectRequired, ErrInvalidArgument},
	{jetstream.ErrBadObjectMeta, ErrInvalidArgument},
	{jetstream.ErrLinkNotAllowed, ErrInvalidArgument},
	{jetstream.ErrNoLinkToDeleted, ErrInvalidArgument},
	{jetstream.ErrNoLinkToLink, ErrInvalidArgument},
	{jetstream.ErrCantGetBucket, ErrInvalidArgument},
	{jetstream.ErrObjectAlreadyExists, ErrAlreadyExists},
	{jetstream.ErrBucketNotFound, ErrBucketNotFound},
	{jetstream.ErrBucketExists, ErrAlreadyExists},
	{jetstream.ErrStreamNotFound, ErrStreamNotFound},
	{jetstream.ErrStreamNameAlreadyInUse, ErrAlreadyExists},
	{jetstream.ErrConsumerNotFound, ErrConsumerNotFound},
	{jetstream.ErrConsumerDoesNotExist, ErrConsumerNotFound},
	{jetstream.ErrConsumerDeleted, ErrConsumerNotFound},
	{jetstream.ErrConsumerExists, ErrAlreadyExists},
	{jetstream.ErrObjectNotFound, ErrObjectNotFound},
	{jetstream.ErrUpdateMetaDeleted, ErrObjectNotFound},
	{jetstream.ErrDigestMismatch, ErrObjectCorrupt},
	{jetstream.ErrKeyNotFound, ErrKeyNotFound},
	{natsgo.ErrNoResponders, ErrNoResponders},
	{natsgo.ErrTimeout, ErrTimeout},
	{context.DeadlineExceeded, ErrTimeout},
}

// Error codes of the JetStream API that upstream has no error value for
// (nats-server, server/errors.json).
const (
	codeMessageTooLarge    jetstream.ErrorCode = 10054
	codeSequenceNotFound   jetstream.ErrorCode = 10043
	codeDeleteFailed       jetstream.ErrorCode = 10057
	codeWrongStream        jetstream.ErrorCode = 10060
	codeWrongLastMsgID     jetstream.ErrorCode = 10070
	codeWrongLastSequence  jetstream.ErrorCode = 10071
	codeSequenceInProcess  jetstream.ErrorCode = 10164
	codeStoreFailed        jetstream.ErrorCode = 10077
	codeTTLDisabled        jetstream.ErrorCode = 10166
	codeDuplicateInProcess jetstream.ErrorCode = 10158
	codeAtomicDisabled     jetstream.ErrorCode = 10174
	codeAtomicIncomplete   jetstream.ErrorCode = 10176
	codeAtomicHeader       jetstream.ErrorCode = 10177
	codeAtomicTooLarge     jetstream.ErrorCode = 10199
	codeAtomicDuplicate    jetstream.ErrorCode = 10201
	codeAtomicInFlight     jetstream.ErrorCode = 10210
)

// What a full stream says: 10077 has the store's own text, and other failures have it too, such as
// that of a server that is shutting down (nats-server, server/store.go).
var fullTexts = []string{"maximum messages", "maximum bytes"}

// sentinelOf sorts an upstream error; nil when none of this package's sentinels fits.
func sentinelOf(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case codeMessageTooLarge:
			return ErrPayloadTooLarge
		case codeWrongStream:
			return ErrNoStream
		case codeWrongLastSequence, codeSequenceInProcess, codeWrongLastMsgID:
			return ErrConflict
		case codeStoreFailed:
			for _, text := range fullTexts {
				if strings.HasPrefix(api.Description, text) {
					return ErrStreamFull
				}
			}
		case codeAtomicDisabled, codeAtomicHeader, codeAtomicTooLarge:
			return ErrInvalidArgument
		case codeAtomicDuplicate:
			return ErrAlreadyExists
		}
	}
	for _, pair := range upstreamSentinels {
		if errors.Is(err, pair.upstream) {
			return pair.ours
		}
	}
	return nil
}
