package fault

import (
	"errors"
	"fmt"
)

// The sentinels. The root package names them too, with what each means to a caller.
var (
	ErrClosed         = errors.New("client is closed")
	ErrNotConnected   = errors.New("not connected")
	ErrConnectionLost = errors.New("connection lost while the request was in flight")
	ErrBufferFull     = errors.New("reconnect buffer is full")
	ErrUnflushed      = errors.New("published data did not reach the server")
	ErrDrainTimeout   = errors.New("draining did not finish in time")
	ErrAuthorization  = errors.New("authorization refused")
	ErrPermission     = errors.New("permission denied")

	ErrInvalidConfig   = errors.New("invalid configuration")
	ErrInvalidArgument = errors.New("invalid argument")
	ErrInvalidSubject  = errors.New("invalid subject")
	ErrInvalidHeader   = errors.New("invalid header")
	ErrReservedHeader  = errors.New("header is a command to the server")
	ErrPayloadTooLarge = errors.New("payload too large")

	ErrTimeout      = errors.New("timed out")
	ErrNoResponders = errors.New("no responders")
	ErrNoReply      = errors.New("message asks for no reply")
	ErrNotJetStream = errors.New("not a JetStream message")
	ErrAlreadyAcked = errors.New("message is already acknowledged")
	ErrLateAck      = errors.New("acknowledged after the ack wait")
	ErrSlowConsumer = errors.New("slow consumer, messages dropped")
	ErrUnsubscribed = errors.New("unsubscribed")
	ErrStopped      = errors.New("stopped")
	ErrHandlerPanic = errors.New("handler panicked")

	ErrJetStreamDisabled = errors.New("JetStream is not enabled")
	ErrNoStream          = errors.New("no stream stores the subject")
	ErrStreamNotFound    = errors.New("stream not found")
	ErrStreamFull        = errors.New("stream is full")
	ErrConsumerNotFound  = errors.New("consumer not found")
	ErrPullRefused       = fmt.Errorf("%w: the consumer allows no such pull", ErrInvalidArgument)
	ErrBucketNotFound    = errors.New("bucket not found")
	ErrKeyNotFound       = errors.New("key not found")
	ErrObjectNotFound    = errors.New("object not found")
	ErrObjectCorrupt     = errors.New("object is corrupt")
	ErrAlreadyExists     = errors.New("already exists")
	ErrLockLost          = errors.New("lock is lost")
	ErrConflict          = errors.New("conflicting revision")
	ErrMessageNotFound   = errors.New("message not found")
	ErrOverlap           = errors.New("overlaps with another one")
	ErrWrongStream       = errors.New("another stream stores the subject")
	ErrWrongDomain       = errors.New("another domain has answered")
	ErrSealed            = errors.New("stream is sealed")
	ErrFeatureDisabled   = errors.New("the stream does not allow it")
	ErrUnsupported       = errors.New("the server does not support it")
	ErrResourceLimit     = errors.New("resource limit reached")
	ErrTooManyRequests   = errors.New("too many requests")
)
