package fault

import (
	"context"
	"errors"
	"io/fs"
	"reflect"
	"sync"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
)

// upstreamSentinels are upstream's errors that have a sentinel. The first of the list that an error is counts.
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

// upstreamClasses are the classes of all others, those of nats.go's old JetStream among them. What is not here
// and not above is sorted by its code.
var upstreamClasses = map[Class][]error{
	{InvalidArgument, 0}: {
		natsgo.ErrBadSubscription, natsgo.ErrTypeSubscription, natsgo.ErrBadQueueName, natsgo.ErrBadTimeout, natsgo.ErrChanArg,
		natsgo.ErrSyncSubRequired, natsgo.ErrMultipleTLSConfigs, natsgo.ErrClientCertOrRootCAsRequired, natsgo.ErrInvalidMsg,
		natsgo.ErrInvalidArg, natsgo.ErrInvalidContext, natsgo.ErrNoDeadlineContext, natsgo.ErrUserButNoSigCB, natsgo.ErrNkeyButNoSigCB,
		natsgo.ErrNoUserCB, natsgo.ErrNkeyAndUser, natsgo.ErrTokenAlreadySet, natsgo.ErrUserInfoAlreadySet, natsgo.ErrBadHeaderMsg,
		natsgo.ErrWebSocketHeadersAlreadySet, natsgo.ErrServerNotInPool, natsgo.ErrMixingWebsocketSchemes,
		natsgo.ErrKeyValueConfigRequired, natsgo.ErrInvalidBucketName, natsgo.ErrInvalidKey, natsgo.ErrHistoryToLarge,
		natsgo.ErrObjectConfigRequired, natsgo.ErrInvalidStoreName, natsgo.ErrNameRequired, natsgo.ErrLinkNotAllowed, natsgo.ErrObjectRequired,
		natsgo.ErrNoLinkToDeleted, natsgo.ErrNoLinkToLink, natsgo.ErrCantGetBucket, natsgo.ErrBucketRequired,
		natsgo.ErrStreamConfigRequired, natsgo.ErrStreamNameRequired, natsgo.ErrConsumerNameRequired, natsgo.ErrConsumerConfigRequired,
		natsgo.ErrPullSubscribeToPushConsumer, natsgo.ErrPullSubscribeRequired, natsgo.ErrInvalidStreamName, natsgo.ErrInvalidConsumerName,
		natsgo.ErrInvalidFilterSubject, natsgo.ErrSubjectMismatch, natsgo.ErrContextAndTimeout,
		natsgo.ErrInvalidDurableName, //nolint:staticcheck // deprecated, and there all the same
		jetstream.ErrStreamNameRequired, jetstream.ErrInvalidStreamName, jetstream.ErrInvalidSubject, jetstream.ErrInvalidConsumerName,
		jetstream.ErrNotPullConsumer, jetstream.ErrNotPushConsumer, jetstream.ErrHandlerRequired, jetstream.ErrAsyncPublishReplySubjectSet,
		jetstream.ErrInvalidOption, jetstream.ErrKeyValueConfigRequired, jetstream.ErrHistoryTooLarge, jetstream.ErrObjectConfigRequired,
		jetstream.ErrBucketRequired, jetstream.ErrTTLOnDeleteNotSupported, jetstream.ErrMaxBytesExceeded,
		micro.ErrMarshalResponse, micro.ErrArgRequired, micro.ErrConfigValidation, micro.ErrVerbNotSupported, micro.ErrServiceNameRequired,
	},
	{NotFound, 0}: {
		natsgo.ErrBucketNotFound, natsgo.ErrKeyNotFound, natsgo.ErrKeyDeleted, natsgo.ErrNoKeysFound, natsgo.ErrObjectNotFound,
		natsgo.ErrNoObjectsFound, natsgo.ErrUpdateMetaDeleted, natsgo.ErrNoStreamResponse, natsgo.ErrNoMatchingStream,
		natsgo.ErrConsumerDeleted, jetstream.ErrKeyDeleted, jetstream.ErrNoKeysFound, jetstream.ErrNoObjectsFound, fs.ErrNotExist,
	},
	{NotFound, again}: {jetstream.ErrNoMessages},
	{AlreadyExists, 0}: {
		natsgo.ErrConsumerNameAlreadyInUse, natsgo.ErrKeyExists, natsgo.ErrObjectAlreadyExists,
		jetstream.ErrConsumerNameAlreadyInUse, jetstream.ErrKeyExists, fs.ErrExist,
	},
	{Aborted, 0}: {natsgo.ErrKeyRevisionMismatch, jetstream.ErrKeyRevisionMismatch, jetstream.ErrPinIDMismatch},
	{FailedPrecondition, 0}: {
		natsgo.ErrInvalidConnection, natsgo.ErrMsgNotBound, natsgo.ErrMsgNoReply, natsgo.ErrConnectionNotTLS, natsgo.ErrSecureConnRequired,
		natsgo.ErrSecureConnWanted, natsgo.ErrTLS, natsgo.ErrBadBucket, natsgo.ErrNotJSMessage, natsgo.ErrCantAckIfConsumerAckNone,
		natsgo.ErrConsumerNotActive, natsgo.ErrConsumerInfoOnOrderedReset, natsgo.ErrSubscriptionClosed, natsgo.ErrJetStreamPublisherClosed,
		jetstream.ErrMsgAlreadyAckd, jetstream.ErrNotJSMessage, jetstream.ErrMsgNotBound, jetstream.ErrMsgNoReply, jetstream.ErrBadBucket,
		jetstream.ErrConsumerAlreadyConsuming, jetstream.ErrConsumerHasActiveSubscription, jetstream.ErrOrderConsumerUsedAsFetch,
		jetstream.ErrOrderConsumerUsedAsConsume, jetstream.ErrOrderedConsumerConcurrentRequests, jetstream.ErrOrderedConsumerNotCreated,
		jetstream.ErrConnectionClosed, jetstream.ErrJetStreamPublisherClosed, fs.ErrClosed,
	},
	{PermissionDenied, 0}: {fs.ErrPermission},
	{Unavailable, again}: {
		natsgo.ErrConnectionReconnecting, natsgo.ErrStaleConnection, natsgo.ErrNoInfoReceived, natsgo.ErrJsonParse,
		natsgo.ErrConsumerLeadershipChanged, natsgo.ErrNoHeartbeat, natsgo.ErrFetchDisconnected, jetstream.ErrConsumerLeadershipChanged,
		jetstream.ErrNoHeartbeat, jetstream.ErrServerShutdown, jetstream.ErrOrderedConsumerReset,
	},
	// A core subscriber has answered, or the answer says nothing.
	{Unavailable, again | doubt}: {
		natsgo.ErrInvalidJSAck, natsgo.ErrConsumerCreationResponseEmpty, jetstream.ErrInvalidJSAck, jetstream.ErrInvalidJetStreamResponse,
		jetstream.ErrConsumerCreationResponseEmpty, jetstream.ErrConsumerResetResponseEmpty,
	},
	{DeadlineExceeded, 0}:             {natsgo.ErrDrainTimeout},
	{DeadlineExceeded, again}:         {natsgo.ErrKeyWatcherTimeout},
	{DeadlineExceeded, again | doubt}: {natsgo.ErrAsyncPublishTimeout, jetstream.ErrAsyncPublishTimeout},
	{Canceled, 0}: {
		natsgo.ErrMaxMessages, jetstream.ErrBatchCompleted, jetstream.ErrEndOfData, jetstream.ErrMsgIteratorClosed,
	},
	{Canceled, doubt}: {context.Canceled},
	{ResourceExhausted, 0}: {
		natsgo.ErrMaxConnectionsExceeded, natsgo.ErrMaxAccountConnectionsExceeded, natsgo.ErrMaxSubscriptionsExceeded,
	},
	{ResourceExhausted, again}: {natsgo.ErrTooManyStalledMsgs, jetstream.ErrTooManyStalledMsgs},
	{DataLoss, 0}: {
		natsgo.ErrBadObjectMeta, natsgo.ErrDigestMismatch, natsgo.ErrInvalidDigestFormat, natsgo.ErrBucketMalformed,
		jetstream.ErrInvalidDigestFormat, jetstream.ErrBucketMalformed,
	},
	{Unimplemented, 0}: {
		natsgo.ErrNoEchoNotSupported, natsgo.ErrClientIDNotSupported, natsgo.ErrNkeysNotSupported, natsgo.ErrClientIPNotSupported,
		natsgo.ErrHeadersNotSupported, natsgo.ErrNeeds262, natsgo.ErrStreamSubjectTransformNotSupported,
		natsgo.ErrStreamSourceSubjectTransformNotSupported, natsgo.ErrStreamSourceNotSupported,
		natsgo.ErrStreamSourceMultipleSubjectTransformsNotSupported, natsgo.ErrConsumerMultipleFilterSubjectsNotSupported,
		jetstream.ErrStreamSubjectTransformNotSupported, jetstream.ErrStreamSourceSubjectTransformNotSupported,
		jetstream.ErrStreamSourceNotSupported, jetstream.ErrStreamSourceMultipleFilterSubjectsNotSupported,
		jetstream.ErrConsumerMultipleFilterSubjectsNotSupported, jetstream.ErrLimitMarkerTTLNotSupported, errors.ErrUnsupported,
	},
	{Internal, 0}: {micro.ErrRespond, jetstream.ErrMsgDeleteUnsuccessful},
}

// classes are those of all the errors above, and of our own that they stand for.
var classes = sync.OnceValue(func() map[error]Class {
	all := map[error]Class{}
	for class, errs := range upstreamClasses {
		for _, err := range errs {
			all[err] = class
		}
	}
	for _, pair := range upstreamSentinels {
		if ours, ok := errors.AsType[*sentinel](pair.ours); ok {
			all[pair.upstream], all[pair.ours] = ours.class, ours.class
		}
	}
	return all
})

// classOf returns the class of this very error, not of those that it wraps, or none.
func classOf(err error) (class Class) {
	if reflect.TypeOf(err).Kind() == reflect.Pointer || err == context.DeadlineExceeded { //nolint:errorlint // the caller unwraps
		class = classes()[err]
	}
	if alike, ok := err.(interface{ Is(error) bool }); ok && class.Kind == "" {
		for other, one := range classes() {
			if graver(one, class) && alike.Is(other) {
				class = one
			}
		}
	}
	return class
}

// Kind sorts an upstream error; nil when none of this package's sentinels fits.
func Kind(err error) error {
	for _, pair := range upstreamSentinels {
		if errors.Is(err, pair.upstream) {
			return pair.ours
		}
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return kindOfCode(api)
	}
	return nil
}
