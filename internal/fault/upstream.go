package fault

import (
	"context"
	"errors"
	"strings"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

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
	{jetstream.ErrBadObjectMeta, ErrObjectCorrupt},
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
	CodeMessageTooLarge    jetstream.ErrorCode = 10054
	CodeHeaderTooLarge     jetstream.ErrorCode = 10097
	CodeMaxBytesDemanded   jetstream.ErrorCode = 10113
	CodeSequenceNotFound   jetstream.ErrorCode = 10043
	CodeDeleteFailed       jetstream.ErrorCode = 10057
	CodeWrongStream        jetstream.ErrorCode = 10060
	CodeWrongLastMsgID     jetstream.ErrorCode = 10070
	CodeWrongLastSequence  jetstream.ErrorCode = 10071
	CodeSequenceInProcess  jetstream.ErrorCode = 10164
	CodeStoreFailed        jetstream.ErrorCode = 10077
	CodeTTLDisabled        jetstream.ErrorCode = 10166
	CodeDuplicateInProcess jetstream.ErrorCode = 10158
	CodeAtomicDisabled     jetstream.ErrorCode = 10174
	CodeAtomicIncomplete   jetstream.ErrorCode = 10176
	CodeAtomicHeader       jetstream.ErrorCode = 10177
	CodeAtomicTooLarge     jetstream.ErrorCode = 10199
	CodeAtomicDuplicate    jetstream.ErrorCode = 10201
	CodeAtomicInFlight     jetstream.ErrorCode = 10210
)

// What a full stream says: 10077 has the store's own text, and other failures have it too, such as
// that of a server that is shutting down (nats-server, server/store.go).
var fullTexts = []string{"maximum messages", "maximum bytes"}

// Kind sorts an upstream error; nil when none of this package's sentinels fits.
func Kind(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case CodeMessageTooLarge, CodeHeaderTooLarge:
			return ErrPayloadTooLarge
		case CodeWrongStream:
			return ErrNoStream
		case CodeWrongLastSequence, CodeSequenceInProcess, CodeWrongLastMsgID:
			return ErrConflict
		case CodeStoreFailed:
			for _, text := range fullTexts {
				if strings.HasPrefix(api.Description, text) {
					return ErrStreamFull
				}
			}
		case CodeAtomicDisabled, CodeAtomicHeader, CodeAtomicTooLarge:
			return ErrInvalidArgument
		case CodeAtomicDuplicate:
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
