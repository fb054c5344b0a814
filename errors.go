package nats

import (
	"errors"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Errors of the connection and the client's life.
var (
	// ErrClosed is returned by every call on a client, or on a handle of it, after Close or Shutdown.
	ErrClosed = fault.ErrClosed
	// ErrNotConnected is returned when no server could be reached within the call's time.
	// Nothing was sent, so the call may be repeated.
	ErrNotConnected = fault.ErrNotConnected
	// ErrConnectionLost is returned when the connection broke while a request was in flight and no
	// answer came in time. The request may have been handled; the caller decides whether to repeat it.
	ErrConnectionLost = fault.ErrConnectionLost
	// ErrBufferFull is returned by a publish while disconnected when the reconnect buffer
	// (reconnect_buffer_size) is full.
	ErrBufferFull = fault.ErrBufferFull
	// ErrUnflushed is returned by Close and Shutdown when published bytes never reached a server.
	ErrUnflushed = fault.ErrUnflushed
	// ErrDrainTimeout is returned by Close, Shutdown, Subscription.Drain, Service.Stop and Consumption.Stop when
	// handlers or messages were left when the time was up.
	ErrDrainTimeout = fault.ErrDrainTimeout
	// ErrAuthorization is returned when the server refuses the credentials.
	ErrAuthorization = fault.ErrAuthorization
	// ErrPermission is returned when the server denies the subject to this user.
	ErrPermission = fault.ErrPermission
)

// Errors of the arguments of a call. They are returned before anything is sent.
var (
	// ErrInvalidConfig is returned for a Config that cannot work; the text names every key and the
	// reason.
	ErrInvalidConfig = fault.ErrInvalidConfig
	// ErrInvalidArgument is returned for an argument that no server would accept, such as a nil
	// handler, a nil message, or a stream name with a dot.
	ErrInvalidArgument = fault.ErrInvalidArgument
	// ErrInvalidSubject is returned for a subject that NATS cannot route, or that is too long for a
	// server (max_control_line); the text tells the fault. A key, or the name of an object, is
	// ErrInvalidArgument then.
	ErrInvalidSubject = fault.ErrInvalidSubject
	// ErrInvalidHeader is returned for a header name or value that would break the protocol.
	ErrInvalidHeader = fault.ErrInvalidHeader
	// ErrReservedHeader is returned by a publish to a stream for a header that the server takes for
	// a command, such as Nats-Rollup, when no option asks for it; see WithHeader.
	ErrReservedHeader = fault.ErrReservedHeader
	// ErrPayloadTooLarge is returned for a message over the server's max_payload or the stream's
	// or bucket's message size limit; the text has the sizes.
	ErrPayloadTooLarge = fault.ErrPayloadTooLarge
)

// Errors of requests and messages.
var (
	// ErrTimeout is returned when an answer did not come in time.
	ErrTimeout = fault.ErrTimeout
	// ErrNoResponders is returned at once by a request on whose subject nobody listens, and by AckSync, AckMessage
	// and PullMessages when there is no consumer that hears them.
	ErrNoResponders = fault.ErrNoResponders
	// ErrNoReply is returned by Respond and its kin on a message whose sender waits for no answer.
	ErrNoReply = fault.ErrNoReply
	// ErrNotJetStream is returned by acknowledgements and Metadata on a message that did not come
	// from a JetStream consumer.
	ErrNotJetStream = fault.ErrNotJetStream
	// ErrAlreadyAcked is returned by the second final acknowledgement (Ack, AckSync, Nak,
	// NakWithDelay, Term) of a message.
	ErrAlreadyAcked = fault.ErrAlreadyAcked
	// ErrLateAck is returned by AckMessage when the message was held for longer than its consumer's
	// ack wait: the acknowledgement holds, but another consumer may have got the message as well.
	ErrLateAck = fault.ErrLateAck
	// ErrSlowConsumer is reported when a subscription's pending limits are exceeded and messages
	// are dropped, and returned by RequestMany when answers are.
	ErrSlowConsumer = fault.ErrSlowConsumer
	// ErrUnsubscribed is what Subscription.Err returns after Unsubscribe or Drain.
	ErrUnsubscribed = fault.ErrUnsubscribed
	// ErrStopped is what Consumption.Err returns after Stop.
	ErrStopped = fault.ErrStopped
	// ErrHandlerPanic is reported when a handler panicked, and the text holds the panic's value, or
	// when it ended its goroutine (runtime.Goexit, as testing's FailNow does), which the text says.
	ErrHandlerPanic = fault.ErrHandlerPanic
)

// Errors of JetStream, key-value and object stores.
var (
	// ErrJetStreamDisabled is returned by every JetStream, key-value and object call when
	// Config.JetStreamEnabled is false, and when the account or the server has no JetStream. In a
	// domain, nobody may answer because it is out of reach for a while: that is waited for.
	ErrJetStreamDisabled = fault.ErrJetStreamDisabled
	// ErrNoStream is returned by a publish to a subject that no stream stores.
	ErrNoStream = fault.ErrNoStream
	// ErrStreamNotFound is returned when the stream does not exist.
	ErrStreamNotFound = fault.ErrStreamNotFound
	// ErrStreamFull is returned by a publish to a stream whose limits are reached and that discards
	// new messages.
	ErrStreamFull = fault.ErrStreamFull
	// ErrConsumerNotFound is returned when the consumer does not exist.
	ErrConsumerNotFound = fault.ErrConsumerNotFound

	// ErrOneAnswer is returned when a question that has many answers gets one and then nothing, several times: the
	// JetStream API is imported from another account whose export lacks response_type: "Stream".
	ErrOneAnswer = fault.ErrOneAnswer

	// ErrPullRefused is returned when the configuration of a consumer does not allow a pull: so many messages
	// at once, for so long, or at all. It is ErrInvalidArgument, too.
	ErrPullRefused = fault.ErrPullRefused
	// ErrBucketNotFound is returned when the key-value or object bucket does not exist.
	ErrBucketNotFound = fault.ErrBucketNotFound
	// ErrKeyNotFound is returned when the key does not exist or was deleted.
	ErrKeyNotFound = fault.ErrKeyNotFound
	// ErrObjectNotFound is returned when the object does not exist or was deleted.
	ErrObjectNotFound = fault.ErrObjectNotFound
	// ErrObjectCorrupt is returned when an object's bytes do not match its stored digest or size, or when its
	// metadata cannot be read.
	ErrObjectCorrupt = fault.ErrObjectCorrupt
	// ErrAlreadyExists is returned when a stream, consumer or bucket of that name exists with
	// another configuration, or a key that was to be created, the new name of an object, or, of a
	// PublishAtomic, the ID of a message.
	ErrAlreadyExists = fault.ErrAlreadyExists
	// ErrLockLost is returned by Lock.Unlock, and is the cause of Lock.Context's end, when the lease
	// ended before: somebody else may have held the lock meanwhile.
	ErrLockLost = fault.ErrLockLost
	// ErrConflict is returned when an expected sequence, revision or message ID is no longer the last
	// one, or an object was replaced meanwhile: another writer was faster.
	ErrConflict = fault.ErrConflict
	// ErrMessageNotFound is returned when a stream has no message of that sequence or subject.
	ErrMessageNotFound = fault.ErrMessageNotFound
	// ErrOverlap is returned for a stream whose subjects another one stores, which the text names where the
	// user may ask for it, and for a consumer of a work queue whose messages another one takes.
	ErrOverlap = fault.ErrOverlap
	// ErrWrongStream is returned by a publish that expects another stream (jetstream.WithExpectStream)
	// than the one that stores its subject.
	ErrWrongStream = fault.ErrWrongStream
	// ErrWrongDomain is returned by a publish that only a stream of another domain than
	// Config.JetStreamDomain has acknowledged: domains that are joined by leaf nodes hear each other's
	// subjects. That stream has the message; the domain's own gave no answer in time.
	ErrWrongDomain = fault.ErrWrongDomain
	// ErrSealed is returned for a change of a stream that was sealed.
	ErrSealed = fault.ErrSealed
	// ErrFeatureDisabled is returned for a message that needs what the stream's configuration does not
	// allow: a TTL, a schedule, a counter, a rollup, an atomic batch, or an acknowledgement (NoAck), where it may
	// be stored all the same.
	ErrFeatureDisabled = fault.ErrFeatureDisabled
	// ErrUnsupported is returned for what the server's version, or a server that is in no cluster, cannot do.
	ErrUnsupported = fault.ErrUnsupported
	// ErrResourceLimit is returned when the account or the server has no room left, or allows no more: of
	// storage, streams, consumers, replicas, or one of their limits.
	ErrResourceLimit = fault.ErrResourceLimit
	// ErrTooManyRequests is returned when the server refused, until the call's time was over, for want of
	// room in one of its queues.
	ErrTooManyRequests = fault.ErrTooManyRequests
)

// wrap gives err its operation, its target and the sentinel that fits.
func wrap(op, target string, err error) error { return fault.Wrap(op, target, err) }

// fail builds an error of this package's own making.
func fail(op, target string, kind error, reason string, args ...any) error {
	return fault.New(op, target, kind, reason, args...)
}

// Kind is the family of an error, for those who answer requests of others, count, or raise an alarm: see KindOf. The
// families are those of gRPC, without gRPC. Its text is for labels and logs, such as "not_found".
type Kind string

// The families of errors, from those that pass by themselves to those that nobody can mend.
const (
	// KindUnknown has the errors that neither this package nor nats.go has made.
	KindUnknown Kind = fault.Unknown
	// KindCanceled is the end that the caller wished.
	KindCanceled Kind = fault.Canceled
	// KindUnavailable is that somebody is not there at the moment: a server, a responder, a leader.
	KindUnavailable Kind = fault.Unavailable
	// KindDeadlineExceeded is that the time was over.
	KindDeadlineExceeded Kind = fault.DeadlineExceeded
	// KindResourceExhausted is that there is no room left: in a buffer, a stream, an account.
	KindResourceExhausted Kind = fault.ResourceExhausted
	// KindAborted is that another one was faster: read again, and decide anew.
	KindAborted Kind = fault.Aborted
	// KindNotFound is that what was asked for does not exist.
	KindNotFound Kind = fault.NotFound
	// KindAlreadyExists is that what was to be made exists.
	KindAlreadyExists Kind = fault.AlreadyExists
	// KindFailedPrecondition is that the call does not fit the state of things, which somebody has to change.
	KindFailedPrecondition Kind = fault.FailedPrecondition
	// KindUnimplemented is that the server does not do it: it is too old, or it is not enabled.
	KindUnimplemented Kind = fault.Unimplemented
	// KindInvalidArgument is a mistake in the call.
	KindInvalidArgument Kind = fault.InvalidArgument
	// KindPermissionDenied is that the user may not do it.
	KindPermissionDenied Kind = fault.PermissionDenied
	// KindUnauthenticated is that the server does not believe the credentials.
	KindUnauthenticated Kind = fault.Unauthenticated
	// KindInternal is a failure of the server's, or of a handler.
	KindInternal Kind = fault.Internal
	// KindDataLoss is that something is lost or damaged.
	KindDataLoss Kind = fault.DataLoss
)

// KindOf sorts an error: of this package, of nats.go and its packages, of the JetStream API, of a context, of a
// service by its code, or of the network. It looks into what wraps others; of joined errors the gravest counts,
// which is the one whose family stands last in the list of constants. KindOf of nil is "".
func KindOf(err error) Kind { return Kind(classOf(err).Kind) }

// IsRetryable tells whether the same call may succeed later although nobody mends anything. Of joined errors all
// that are known must be such; Permanent and RetryAfter have the last word. Where the error IsUncertain, a
// repetition may do twice what the call does.
func IsRetryable(err error) bool {
	if v, ok := errors.AsType[*consume.RetryError](err); ok {
		return v.After >= 0
	}
	return classOf(err).IsRetryable()
}

// IsUncertain tells whether what the call was to do may have been done in spite of the error, so that repeating it
// may do it twice. Of joined errors one is enough.
func IsUncertain(err error) bool { return classOf(err).IsUncertain() }

func classOf(err error) fault.Class {
	return fault.Classify(err, func(err error) (int, bool) {
		e, ok := err.(*ServiceError) //nolint:errorlint // Classify asks for each of the chain
		if !ok || e == nil {
			return 0, false
		}
		return e.Code, true
	})
}
