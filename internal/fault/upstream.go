package fault

import (
	"context"
	"errors"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// upstreamSentinels is searched in order: the specific error of a pair that wrap each other is first.
var upstreamSentinels = []struct{ upstream, ours error }{
	{ErrWrongDomain, ErrWrongDomain},
	{ErrJetStreamDisabled, ErrJetStreamDisabled},
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
	{jetstream.ErrConsumerDeleted, ErrConsumerNotFound},
	{jetstream.ErrObjectNotFound, ErrObjectNotFound},
	{jetstream.ErrUpdateMetaDeleted, ErrObjectNotFound},
	{jetstream.ErrDigestMismatch, ErrObjectCorrupt},
	{jetstream.ErrKeyNotFound, ErrKeyNotFound},
	{natsgo.ErrNoResponders, ErrNoResponders},
	{natsgo.ErrTimeout, ErrTimeout},
	{context.DeadlineExceeded, ErrTimeout},
}

// Kind sorts an upstream error; nil when none of this package's sentinels fits.
func Kind(err error) error {
	for _, pair := range upstreamSentinels {
		if errors.Is(err, pair.upstream) {
			return pair.ours
		}
	}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return kindOfCode(api)
	}
	return nil
}
