package fault

import "fmt"

// The sentinels. The root package names them too, with what each means to a caller.
var (
	ErrClosed         = named("client is closed", FailedPrecondition, 0)
	ErrNotConnected   = named("not connected", Unavailable, again)
	ErrConnectionLost = named("connection lost while the request was in flight", Unavailable, again|doubt)
	ErrBufferFull     = named("reconnect buffer is full", ResourceExhausted, again)
	ErrUnflushed      = named("published data did not reach the server", DataLoss, doubt)
	ErrDrainTimeout   = named("draining did not finish in time", DeadlineExceeded, 0)
	ErrAuthorization  = named("authorization refused", Unauthenticated, 0)
	ErrPermission     = named("permission denied", PermissionDenied, 0)

	ErrInvalidConfig   = named("invalid configuration", InvalidArgument, 0)
	ErrInvalidArgument = named("invalid argument", InvalidArgument, 0)
	ErrInvalidSubject  = named("invalid subject", InvalidArgument, 0)
	ErrInvalidHeader   = named("invalid header", InvalidArgument, 0)
	ErrReservedHeader  = named("header is a command to the server", InvalidArgument, 0)
	ErrPayloadTooLarge = named("payload too large", InvalidArgument, 0)

	ErrTimeout      = named("timed out", DeadlineExceeded, again|doubt)
	ErrNoResponders = named("no responders", Unavailable, again)
	ErrNoReply      = named("message asks for no reply", FailedPrecondition, 0)
	ErrNotJetStream = named("not a JetStream message", FailedPrecondition, 0)
	ErrAlreadyAcked = named("message is already acknowledged", FailedPrecondition, 0)
	ErrLateAck      = named("acknowledged after the ack wait", DeadlineExceeded, 0)
	ErrSlowConsumer = named("slow consumer, messages dropped", ResourceExhausted, 0)
	ErrUnsubscribed = named("unsubscribed", Canceled, 0)
	ErrStopped      = named("stopped", Canceled, 0)
	ErrHandlerPanic = named("handler panicked", Internal, 0)

	ErrJetStreamDisabled = named("JetStream is not enabled", Unimplemented, 0)
	ErrNoStream          = named("no stream stores the subject", NotFound, 0)
	ErrStreamNotFound    = named("stream not found", NotFound, 0)
	ErrStreamFull        = named("stream is full", ResourceExhausted, again)
	ErrConsumerNotFound  = named("consumer not found", NotFound, 0)
	ErrOneAnswer         = named(`each question gets one answer only: where the JetStream API is imported from another account, its export needs response_type: "Stream"`, FailedPrecondition, 0)
	ErrPullRefused       = fmt.Errorf("%w: the consumer allows no such pull", ErrInvalidArgument)
	ErrBucketNotFound    = named("bucket not found", NotFound, 0)
	ErrKeyNotFound       = named("key not found", NotFound, 0)
	ErrObjectNotFound    = named("object not found", NotFound, 0)
	ErrObjectCorrupt     = named("object is corrupt", DataLoss, 0)
	ErrAlreadyExists     = named("already exists", AlreadyExists, 0)
	ErrLockLost          = named("lock is lost", Aborted, 0)
	ErrConflict          = named("conflicting revision", Aborted, 0)
	ErrMessageNotFound   = named("message not found", NotFound, 0)
	ErrOverlap           = named("overlaps with another one", FailedPrecondition, 0)
	ErrWrongStream       = named("another stream stores the subject", FailedPrecondition, 0)
	ErrWrongDomain       = named("another domain has answered", Unavailable, again|doubt)
	ErrSealed            = named("stream is sealed", FailedPrecondition, 0)
	ErrFeatureDisabled   = named("the stream does not allow it", FailedPrecondition, 0)
	ErrUnsupported       = named("the server does not support it", Unimplemented, 0)
	ErrResourceLimit     = named("resource limit reached", ResourceExhausted, 0)
	ErrTooManyRequests   = named("too many requests", ResourceExhausted, again)
)

// sentinel is an error that is known by its identity.
type sentinel struct {
	text  string
	class Class
}

func (s *sentinel) Error() string { return s.text }

func named(text, kind string, marks marks) error { return &sentinel{text, Class{kind, marks}} }
