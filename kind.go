package nats

import (
	"errors"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

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
