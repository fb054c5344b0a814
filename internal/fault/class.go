package fault

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"slices"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The kinds of errors, which are those of gRPC.
const (
	Unknown            = "unknown"
	Canceled           = "canceled"
	Unavailable        = "unavailable"
	DeadlineExceeded   = "deadline_exceeded"
	ResourceExhausted  = "resource_exhausted"
	Aborted            = "aborted"
	NotFound           = "not_found"
	AlreadyExists      = "already_exists"
	FailedPrecondition = "failed_precondition"
	Unimplemented      = "unimplemented"
	InvalidArgument    = "invalid_argument"
	PermissionDenied   = "permission_denied"
	Unauthenticated    = "unauthenticated"
	Internal           = "internal"
	DataLoss           = "data_loss"
)

// gravity is the order of the kinds, from what passes by itself to what nobody can mend.
var gravity = []string{
	"", Unknown, Canceled, Unavailable, DeadlineExceeded, ResourceExhausted, Aborted, NotFound, AlreadyExists,
	FailedPrecondition, Unimplemented, InvalidArgument, PermissionDenied, Unauthenticated, Internal, DataLoss,
}

// Class is what a caller wants to know of an error before all else.
type Class struct {
	Kind  string // "" for no error
	marks marks
}

type marks uint8

const (
	again marks = 1 << iota // the same may succeed later
	doubt                   // it may have been done
)

// IsRetryable tells whether the same call may succeed later although nobody mends anything.
func (c Class) IsRetryable() bool { return c.marks&again != 0 }

// IsUncertain tells whether the call may have done what it was to do.
func (c Class) IsUncertain() bool { return c.marks&doubt != 0 }

// Doubt is an error that makes uncertain whatever it is the cause of.
type Doubt string //nolint:errname // it is written as the text that it is

func (d Doubt) Error() string { return string(d) }

// Classify sorts an error. Of joined errors the kind is the gravest, and they are retryable when all that are
// known are, and uncertain when one is. Status returns the code of an error that has one of HTTP's; it may be
// nil.
func Classify(err error, status func(error) (int, bool)) Class {
	if err == nil {
		return Class{}
	}
	if status != nil {
		if code, ok := status(err); ok {
			return ofStatus(code)
		}
	}
	switch e := err.(type) { //nolint:errorlint // it unwraps by itself
	case *sentinel:
		return e.class
	case Doubt:
		return Class{Unknown, doubt}
	case *Error:
		class := Classify(e.Kind, status)
		if class.Kind == "" {
			return Classify(cmp.Or(e.Cause, errUnknown), status)
		}
		if _, ok := errors.AsType[Doubt](e.Cause); ok {
			class.marks |= doubt
		}
		if api, ok := errors.AsType[*jetstream.APIError](e.Cause); ok && Passes(api) {
			class.marks |= again
		}
		return class
	case *jetstream.APIError:
		return ofCode(e)
	case *natsgo.APIError:
		return ofCode(&jetstream.APIError{Code: e.Code, ErrorCode: jetstream.ErrorCode(e.ErrorCode), Description: e.Description})
	case *fs.PathError:
		if class := Classify(cmp.Or(e.Err, errUnknown), status); class.Kind != Unavailable { // as any number of the system's would be
			return class
		}
		return Class{Unknown, 0}
	case *net.OpError:
		if e.Op == "dial" { // nothing was sent, whatever the cause
			return Class{Unavailable, again}
		}
	}
	class := classOf(err)
	if class.Kind != "" {
		return class
	}
	switch e := err.(type) { //nolint:errorlint // it unwraps by itself
	case interface{ Unwrap() error }:
		class = Classify(cmp.Or(e.Unwrap(), errUnknown), status)
	case interface{ Unwrap() []error }:
		class = gravest(e.Unwrap(), status)
	}
	if class.Kind == "" || class.Kind == Unknown && class.marks == 0 {
		return foreign(err)
	}
	return class
}

var errUnknown = named("", Unknown, 0)

func gravest(errs []error, status func(error) (int, bool)) Class {
	all := Class{Unknown, again}
	for _, err := range errs {
		one := Classify(err, status)
		all.marks |= one.marks & doubt
		if one.Kind == "" || one.Kind == Unknown {
			continue
		}
		all.marks &= one.marks | doubt
		if graver(one, all) {
			all.Kind = one.Kind
		}
	}
	if all.Kind == Unknown {
		all.marks &= doubt
	}
	return all
}

func graver(a, b Class) bool { return slices.Index(gravity, a.Kind) > slices.Index(gravity, b.Kind) }

// foreign sorts what is neither ours nor nats.go's.
func foreign(err error) Class {
	switch e := err.(type) { //nolint:errorlint // the caller unwraps
	case x509.UnknownAuthorityError, x509.HostnameError, x509.CertificateInvalidError, tls.AlertError, tls.RecordHeaderError:
		return Class{FailedPrecondition, 0}
	case *json.SyntaxError, *json.UnmarshalTypeError:
		return Class{InvalidArgument, 0}
	case *natsgo.ErrConsumerSequenceMismatch:
		return Class{Aborted, 0}
	case *net.DNSError:
		return Class{Unavailable, again}
	case net.Error:
		if e.Timeout() {
			return Class{DeadlineExceeded, again | doubt}
		}
		return Class{Unavailable, again | doubt}
	}
	return Class{Unknown, 0}
}

// ofStatus sorts by a code of HTTP's. A payload that is too large may be the answer.
func ofStatus(code int) Class {
	switch code {
	case http.StatusUnauthorized:
		return Class{Unauthenticated, 0}
	case http.StatusForbidden:
		return Class{PermissionDenied, 0}
	case http.StatusNotFound, http.StatusGone:
		return Class{NotFound, 0}
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return Class{DeadlineExceeded, again | doubt}
	case http.StatusConflict:
		return Class{Aborted, 0}
	case http.StatusPreconditionFailed, http.StatusLocked, http.StatusPreconditionRequired:
		return Class{FailedPrecondition, 0}
	case http.StatusRequestEntityTooLarge:
		return Class{InvalidArgument, doubt}
	case http.StatusTooManyRequests, http.StatusInsufficientStorage:
		return Class{ResourceExhausted, again}
	case 499: // of a client that has gone
		return Class{Canceled, doubt}
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return Class{Unimplemented, 0}
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return Class{Unavailable, again}
	}
	switch code / 100 {
	case 4:
		return Class{InvalidArgument, 0}
	case 5:
		return Class{Internal, 0}
	}
	return Class{Unknown, 0}
}
