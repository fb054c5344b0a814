package fault

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// Error codes of the JetStream API (nats-server, server/errors.json) that somebody looks for.
const (
	CodeSequenceNotFound   jetstream.ErrorCode = 10043
	CodeMessageTooLarge    jetstream.ErrorCode = 10054
	CodeDeleteFailed       jetstream.ErrorCode = 10057
	CodeWrongStream        jetstream.ErrorCode = 10060
	CodeSubjectOverlap     jetstream.ErrorCode = 10065
	CodeWrongLastSequence  jetstream.ErrorCode = 10071
	CodeStoreFailed        jetstream.ErrorCode = 10077
	codeRollup             jetstream.ErrorCode = 10111
	CodeMaxBytesDemanded   jetstream.ErrorCode = 10113
	CodeInactiveTooLong    jetstream.ErrorCode = 10153
	CodeDuplicateInProcess jetstream.ErrorCode = 10158
	CodeSequenceInProcess  jetstream.ErrorCode = 10164
	CodeTTLDisabled        jetstream.ErrorCode = 10166
	CodeAtomicIncomplete   jetstream.ErrorCode = 10176
	CodeAtomicDuplicate    jetstream.ErrorCode = 10201
)

// codes are the sentinels of the errors of the JetStream API. Those that are not listed are mistakes in what
// was asked for where their class is 400, and otherwise the server's own affairs.
var codes = map[error][]jetstream.ErrorCode{
	ErrJetStreamDisabled: {10039, 10076},
	ErrStreamNotFound:    {10059},
	ErrConsumerNotFound:  {10014, 10149},
	ErrMessageNotFound:   {10037, CodeSequenceNotFound},
	// Consumers and streams there are, and a message of a batch that was published before.
	ErrAlreadyExists: {10013, 10058, 10105, 10106, 10130, 10148, CodeAtomicDuplicate},
	// Sequences and message IDs, and a stream that is being moved or was made anew.
	ErrConflict:        {10070, CodeWrongLastSequence, 10124, CodeSequenceInProcess, 10180, 10225, 10226},
	ErrOverlap:         {CodeSubjectOverlap, 10099, 10100},
	ErrWrongStream:     {CodeWrongStream},
	ErrSealed:          {10109},
	ErrPayloadTooLarge: {CodeMessageTooLarge, 10097},
	ErrTooManyRequests: {10167, 10210, 10211},
	// TTLs, counters, atomic batches, schedules, fast batches.
	ErrFeatureDisabled: {CodeTTLDisabled, 10168, 10174, 10188, 10205},
	// Clusters, replicas, an API level, and what an older server finds of a newer one.
	ErrUnsupported: {10010, 10036, 10074, 10185, 10194, 10195},
	// Of the account, the server, the cluster and its peers.
	ErrResourceLimit: {10002, 10005, 10023, 10026, 10027, 10028, 10047, 10120, 10121, 10122, 10125, 10153},
	// All that is wrong with a stream's configuration, and with a consumer's filters, for which upstream's errors
	// have another class than the server's, and the value of a rollup.
	ErrInvalidArgument: {10052, codeRollup, 10136, 10138, 10139},
	// What passes, or is not known.
	nil: {10040, 10044, 10129, CodeAtomicIncomplete, 10202, 10208, 10224},
}

// internal are the server's own failures.
var internal = []jetstream.ErrorCode{
	10006, 10007, 10012, 10029, 10041, 10042, 10045, 10048, 10049, 10050, 10051, 10053, CodeDeleteFailed, 10062, 10064,
	10066, 10067, 10069, 10072, 10096, 10104, 10110, 10117, 10228,
}

var sentinelOf = sync.OnceValue(func() map[jetstream.ErrorCode]error {
	all := map[jetstream.ErrorCode]error{}
	for sentinel, listed := range codes {
		for _, code := range listed {
			all[code] = sentinel
		}
	}
	return all
})

// fullTexts are what a full stream says: 10077 has the store's own text, and other failures have it too, such
// as that of a server that is shutting down (nats-server, server/store.go).
var fullTexts = []string{"maximum messages", "maximum bytes"}

// noRollup is what a stream that does not allow rollups says, in the place of what is wrong with one.
const noRollup = "rollup not permitted"

// kindOfCode returns the sentinel of an error of the JetStream API, or nil.
func kindOfCode(api *jetstream.APIError) error {
	if api.ErrorCode == codeRollup && api.Description == noRollup {
		return ErrFeatureDisabled
	}
	if sentinel, ok := sentinelOf()[api.ErrorCode]; ok {
		return sentinel
	}
	switch {
	case api.ErrorCode == CodeStoreFailed && slices.ContainsFunc(fullTexts, func(text string) bool {
		return strings.HasPrefix(api.Description, text)
	}):
		return ErrStreamFull
	case api.Code == classInvalid:
		return ErrInvalidArgument
	}
	return nil
}

// The classes of errors of the JetStream API.
const (
	classInvalid     = 400
	classNotFound    = 404
	classCrowded     = 429
	classUnavailable = 503
)

// passing are the codes of errors that pass, although their classes or sentinels do not say so: a full disk or
// a burst of requests, what is still in process, a cluster in the middle of something, and servers that are
// not there at the moment.
var passing = []jetstream.ErrorCode{
	10004, 10008, 10009, 10023, 10035, 10063, 10075, 10118, 10119, CodeDuplicateInProcess, 10163, 10202,
}

// CodeOf returns the code of the JetStream API's error that err is or wraps, or 0.
func CodeOf(err error) jetstream.ErrorCode {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.ErrorCode
	}
	return 0
}

// roomless are refusals for want of room in the account, and in the server.
var roomless = []jetstream.ErrorCode{10002, 10028, 10047}

// IsFull tells whether an error says that there is no room: in a stream or, where others may take what is made, in all of
// an account or server.
func IsFull(err error) bool {
	return errors.Is(err, ErrStreamFull) || slices.Contains(roomless, CodeOf(err))
}

// Passes tells whether an error of the JetStream API is about a state of the server that passes, so that the
// same may be done a moment later.
func Passes(api *jetstream.APIError) bool {
	return api.Code == classCrowded || slices.Contains(passing, api.ErrorCode) ||
		api.Code == classUnavailable && kindOfCode(api) == nil
}

// ofCode is the class of an error of the JetStream API.
func ofCode(api *jetstream.APIError) (class Class) {
	passes, sentinel := Passes(api), kindOfCode(api)
	switch {
	case sentinel != nil:
		class = Classify(sentinel, nil)
	case passes, api.ErrorCode == CodeStoreFailed:
		class = Class{Unavailable, again}
	case slices.Contains(internal, api.ErrorCode), api.Code >= 500:
		class = Class{Internal, 0}
	case api.Code == classNotFound:
		class = Class{NotFound, 0}
	case slices.Contains(codes[nil], api.ErrorCode), api.Code != 0:
		class = Class{FailedPrecondition, 0}
	case api.ErrorCode != 0:
		class = Class{InvalidArgument, 0}
	default:
		class = Class{Unknown, 0}
	}
	if passes {
		class.marks |= again
	}
	if api.ErrorCode == CodeDuplicateInProcess {
		class.marks |= doubt
	}
	return class
}
