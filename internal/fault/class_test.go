package fault_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

type alike struct{ to error }

func (alike) Error() string          { return "alike" }
func (a alike) Is(target error) bool { return target == a.to }
func status(err error) (int, bool)   { s, ok := err.(coded); return int(s), ok } //nolint:errorlint // Classify unwraps

type coded int

func (c coded) Error() string { return http.StatusText(int(c)) }

func TestClassify(t *testing.T) {
	t.Parallel()
	_, dial := net.DialTimeout("tcp", "127.0.0.1:1", time.Second)
	_, missing := os.Open("/nowhere/at/all")
	unread := json.Unmarshal([]byte("{"), new(int))
	ended, cancel := context.WithCancelCause(context.Background())
	cancel(io.ErrClosedPipe)
	stranger := errors.New("a stranger")
	for name, c := range map[string]struct {
		err          error
		kind         string
		again, doubt bool
	}{
		"nil":                               {nil, "", false, false},
		"unknown":                           {stranger, fault.Unknown, false, false},
		"nobody reached":                    {fault.New("publish", "a", fault.ErrNotConnected, "%w", context.DeadlineExceeded), fault.Unavailable, true, false},
		"lost":                              {fault.Wrap("request", "a", natsgo.ErrDisconnected), fault.Unavailable, true, true},
		"timed out":                         {fault.Wrap("request", "a", context.DeadlineExceeded), fault.DeadlineExceeded, true, true},
		"a bare deadline":                   {context.DeadlineExceeded, fault.DeadlineExceeded, true, true},
		"cancelled":                         {fault.Wrap("request", "a", fault.Ended(ended)), fault.Canceled, false, true},
		"a wrapped sentinel":                {fmt.Errorf("load: %w", fmt.Errorf("%w: %w", stranger, fault.ErrKeyNotFound)), fault.NotFound, false, false},
		"closed":                            {fault.New("publish", "a", fault.ErrClosed, ""), fault.FailedPrecondition, false, false},
		"closed in flight":                  {fault.New("publish", "a", fault.ErrClosed, "%w", fault.Doubt("no answer")), fault.FailedPrecondition, false, true},
		"conflict in doubt":                 {fault.Wrap("put", "a", fault.Joined{&jetstream.APIError{ErrorCode: 10071}, fault.Doubt("no answer")}), fault.Aborted, false, true},
		"two of our own":                    {fault.ErrPullRefused, fault.InvalidArgument, false, false},
		"the gravest":                       {errors.Join(fault.ErrTimeout, fault.ErrObjectCorrupt, stranger), fault.DataLoss, false, true},
		"both pass":                         {errors.Join(fault.ErrNoResponders, nil, stranger, fault.ErrStreamFull), fault.ResourceExhausted, true, false},
		"one does not pass":                 {fault.Joined{fault.ErrNoResponders, fault.ErrClosed}, fault.FailedPrecondition, false, false},
		"strangers":                         {errors.Join(stranger, io.EOF), fault.Unknown, false, false},
		"a full stream":                     {&jetstream.APIError{Code: 503, ErrorCode: 10077, Description: "maximum messages exceeded"}, fault.ResourceExhausted, true, false},
		"a store that fails":                {&jetstream.APIError{Code: 503, ErrorCode: 10077}, fault.Unavailable, true, false},
		"a full disk":                       {fault.Wrap("publish", "a", &jetstream.APIError{Code: 503, ErrorCode: 10023}), fault.ResourceExhausted, true, false},
		"a full account":                    {fault.Wrap("publish", "a", &jetstream.APIError{Code: 400, ErrorCode: 10002}), fault.ResourceExhausted, false, false},
		"in process":                        {&jetstream.APIError{Code: 409, ErrorCode: 10158}, fault.Unavailable, true, true},
		"a code of the old API":             {natsgo.ErrStreamNotFound, fault.NotFound, false, false},
		"a code of tomorrow":                {&jetstream.APIError{Code: 500, ErrorCode: 19999}, fault.Internal, false, false},
		"upstream's, without a code":        {fmt.Errorf("x: %w", jetstream.ErrNoHeartbeat), fault.Unavailable, true, false},
		"upstream's, as one of ours":        {natsgo.ErrMaxPayload, fault.InvalidArgument, false, false},
		"upstream's, in the server's words": {fmt.Errorf("x: %w", alike{natsgo.ErrStaleConnection}), fault.Unavailable, true, false},
		"somebody's, as one of ours":        {alike{fault.ErrKeyNotFound}, fault.NotFound, false, false},
		"a port where nobody listens":       {dial, fault.Unavailable, true, false},
		"a broken pipe":                     {&net.OpError{Op: "write", Err: os.NewSyscallError("write", stranger)}, fault.Unavailable, true, true},
		"a network that is slow":            {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, fault.DeadlineExceeded, true, true},
		"a certificate":                     {fmt.Errorf("tls: %w", x509.UnknownAuthorityError{}), fault.FailedPrecondition, false, false},
		"a name":                            {&net.DNSError{IsNotFound: true}, fault.Unavailable, true, false},
		"a file":                            {missing, fault.NotFound, false, false},
		"a directory":                       {&fs.PathError{Op: "read", Err: syscall.EISDIR}, fault.Unknown, false, false},
		"a permission":                      {&fs.PathError{Err: fs.ErrPermission}, fault.PermissionDenied, false, false},
		"a payload":                         {fault.Wrap("decode", "", unread), fault.InvalidArgument, false, false},
		"what cannot be compared":           {fault.Joined{fault.Joined{fault.ErrPermission}}, fault.PermissionDenied, false, false},
		"a service's":                       {fmt.Errorf("x: %w", coded(404)), fault.NotFound, false, false},
		"a service that is full":            {coded(503), fault.Unavailable, true, false},
		"an answer that is too large":       {coded(413), fault.InvalidArgument, false, true},
		"a service that gave up":            {coded(504), fault.DeadlineExceeded, true, true},
		"a service's own affairs":           {coded(599), fault.Internal, false, false},
		"a service's code that is text":     {coded(0), fault.Unknown, false, false},
	} {
		class := fault.Classify(c.err, status)
		assert.Equal(t, c.kind, class.Kind, name)
		assert.Equal(t, c.again, class.IsRetryable(), "%s is retryable", name)
		assert.Equal(t, c.doubt, class.IsUncertain(), "%s is uncertain", name)
	}
}

// A retry loop asks for every failure.
func BenchmarkClassify(b *testing.B) {
	for name, err := range map[string]error{
		"ours":     fault.Wrap("request", "a", natsgo.ErrNoResponders),
		"wrapped":  fmt.Errorf("load: %w", fault.Wrap("request", "a", natsgo.ErrNoResponders)),
		"upstream": natsgo.ErrNoResponders,
		"code":     fault.Wrap("publish", "a", &jetstream.APIError{Code: 503, ErrorCode: 10077}),
		"joined":   errors.Join(fault.ErrTimeout, fault.ErrObjectCorrupt),
		"stranger": io.EOF,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				fault.Classify(err, nil)
			}
		})
	}
}
