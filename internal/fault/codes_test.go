package fault_test

import (
	"slices"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// What a caller can act on has a sentinel; the rest is known to need none. A server that says something new
// makes this test fail.
func TestErrorsOfTheAPI(t *testing.T) {
	t.Parallel()
	const first, last = 10002, 10228 // of the server's release
	passes := []jetstream.ErrorCode{ // and are ErrTimeout in the end
		10004, 10008, 10009, 10063, 10075, 10077, 10118, 10119, 10158, 10163, 10202,
		10035, // during the start of a server that learns its accounts
	}
	internal := []jetstream.ErrorCode{ // the server's own failures
		10006, 10007, 10012, 10029, 10041, 10042, 10045, 10048, 10049, 10050, 10051, 10053, 10057, 10062, 10064,
		10066, 10067, 10069, 10072, 10096, 10104, 10110, 10117, 10228,
	}
	elsewhere := []jetstream.ErrorCode{ // operators' tools ask for these, and whoever sends batches knows theirs
		10040, 10044, 10068, 10129, 10176, 10208, 10224,
	}
	for code := jetstream.ErrorCode(first); code <= last; code++ {
		known := server.ApiErrors[server.ErrorIdentifier(code)]
		if !assert.NotNil(t, known, code) {
			continue
		}
		err := &jetstream.APIError{Code: known.Code, ErrorCode: code, Description: known.Description}
		none := slices.Contains(slices.Concat(passes, internal, elsewhere), code)
		assert.Equal(t, none, fault.Kind(err) == nil, "%v", err)
		assert.Equal(t, slices.Contains(passes, code) || known.Code == 429 || code == 10023, fault.Passes(err), "%v", err)
	}
	assert.Len(t, server.ApiErrors, last-first+1)
	for code, sentinel := range map[jetstream.ErrorCode]error{
		10037: fault.ErrMessageNotFound, 10065: fault.ErrOverlap, 10099: fault.ErrOverlap, 10109: fault.ErrSealed,
		10166: fault.ErrFeatureDisabled, 10174: fault.ErrFeatureDisabled, 10188: fault.ErrFeatureDisabled,
		10189: fault.ErrInvalidArgument, 10190: fault.ErrInvalidArgument, 10167: fault.ErrTooManyRequests,
		10060: fault.ErrWrongStream, 10023: fault.ErrResourceLimit, 10036: fault.ErrUnsupported,
	} {
		known := server.ApiErrors[server.ErrorIdentifier(code)]
		assert.Equal(t, sentinel, fault.Kind(&jetstream.APIError{Code: known.Code, ErrorCode: code}), code)
	}
	for text, sentinel := range map[string]error{"rollup not permitted": fault.ErrFeatureDisabled, "rollup value invalid": fault.ErrInvalidArgument} {
		assert.Equal(t, sentinel, fault.Kind(&jetstream.APIError{Code: 400, ErrorCode: 10111, Description: text}), text)
	}
}
