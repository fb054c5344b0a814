package chaos_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/chaos/check"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
)

// workerSpec is what a worker is told.
type workerSpec struct {
	Name   string // and life: w1.2
	Dir    string
	URLs   []string
	Domain string
	Secret string
	Seed   uint64
	// Service and Consul are where to find servers, and the files are for TLS; "" is neither.
	Service, Consul, CA, Cert, Key string
}

// What the driver says to a worker, a line each; the last two it hears as soon as they are done. SIGTERM ends it gracefully.
const (
	pause  = "pause"  // begin nothing for a while
	resume = "resume" //
	settle = "settle" // begin nothing more
	dump   = "dump"   // sweep, and write down what watchers and caches know
)

// worker makes all kinds of calls and writes down what it does and sees.
type worker struct {
	workerSpec
	*holding
	stalls *conntest.Stalls
	before usage // before there was a client
	loads  sync.WaitGroup
	paused atomic.Bool

	mu  sync.Mutex
	out *os.File
}

// work is the process of a worker.
func work(text string) (err error) {
	stalls, stop := conntest.WatchStalls()
	defer stop()
	w := &worker{stalls: stalls}
	if err := json.Unmarshal([]byte(text), &w.workerSpec); err != nil {
		return err
	}
	if w.out, err = os.Create(filepath.Join(w.Dir, w.Name+".jsonl")); err != nil {
		return err
	}
	ended, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	loading, settled := context.WithCancel(ended)
	defer settled()
	begun := make(chan struct{})
	go w.obey(begun, settled)
	w.before = used()
	client := w.connect(ended)
	if client == nil {
		return nil
	}
	var ok bool
	if w.holding, ok = w.open(ended, client); ok {
		w.begin(loading)
		close(begun)
	}
	<-ended.Done()
	w.loads.Wait()
	_ = w.call("life/close", "", "", 20*time.Second, func(ctx context.Context, _ *check.Record) error { return client.Shutdown(ctx) })
	w.report()
	w.nothingLeft()
	return nil
}

// connect tries until there is a client.
func (w *worker) connect(ctx context.Context) (client *nats.Client) {
	w.until(ctx, "life/connect", "", 10*time.Second, func(ctx context.Context) (err error) {
		client, err = nats.NewClientContext(ctx, w.config(), nats.WithEventHandler(w.happened))
		return err
	})
	return client
}

func (w *worker) config() *nats.Config {
	return &nats.Config{
		UseConsul: w.Consul != "", ServiceName: w.Service, Consul: nats.ConsulConfig{Address: w.Consul, Timeout: time.Second},
		TLSEnabled: w.CA != "", TLSCA: w.CA, TLSCert: w.Cert, TLSKey: w.Key,
		URLs: w.URLs, Username: user, PasswordFile: w.Secret, JetStreamEnabled: true, JetStreamDomain: w.Domain, ClientID: w.Name, Timeout: 3 * time.Second,
		PingInterval: check.PingInterval, MaxPingsOut: check.MaxPingsOut, ReconnectWait: 50 * time.Millisecond, ReconnectMaxWait: 500 * time.Millisecond, RequestTimeout: 5 * time.Second,
	}
}

// happened writes down when the connection came and went.
func (w *worker) happened(e nats.Event) {
	what := check.Up
	switch e.Type {
	case nats.EventConnected, nats.EventReconnected:
	case nats.EventDisconnected:
		what = check.Down
	default:
		return
	}
	at := e.Time.UnixNano()
	w.write(check.Record{Op: "life/line", ID: what, Begin: at, End: at, Stall: w.stalls.Between(e.Time.Add(-check.Patience), e.Time)})
}

// obey does what the driver says, once the loads have begun. The process ends with its standard input.
func (w *worker) obey(begun chan struct{}, settled func()) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		<-begun
		switch lines.Text() {
		case pause, resume:
			w.paused.Store(lines.Text() == pause)
			continue
		case settle:
			w.saw("life/settle", "", "", 0, 0)
			settled()
			w.loads.Wait()
		case dump:
			w.dump()
		}
		fmt.Println(lines.Text())
	}
	os.Exit(1)
}

// write adds a record to the history.
func (w *worker) write(r check.Record) {
	r.Worker = w.Name
	line, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.out.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

// saw writes down what came to the worker.
func (w *worker) saw(op, key, id string, seq, n uint64) {
	now := time.Now().UnixNano()
	w.write(check.Record{Op: op, Key: key, ID: id, Seq: seq, N: n, Begin: now, End: now})
}

// call makes a call within its time and writes down how it ended. What f sets in the record is kept.
func (w *worker) call(op, key, id string, limit time.Duration, f func(context.Context, *check.Record) error) error {
	r := check.Record{Op: op, Key: key, ID: id, Limit: limit}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	begin := time.Now()
	err := f(ctx, &r)
	end := time.Now()
	r.Begin, r.End = begin.UnixNano(), end.UnixNano()
	r.Stall, r.Held = w.stalls.Worst(begin, end), w.stalls.Between(begin.Add(-check.Lease), end)
	r.Fate, r.Err = fate(err)
	r.Kinds = kinds(err)
	w.write(r)
	return err
}

func fate(err error) (check.Fate, string) {
	switch {
	case err == nil:
		return check.Done, ""
	case nats.IsUncertain(err):
		return check.Maybe, err.Error()
	}
	return check.Not, err.Error()
}

// until repeats a call that the worker cannot do without.
func (w *worker) until(ctx context.Context, op, id string, limit time.Duration, f func(context.Context) error) bool {
	for ctx.Err() == nil {
		if w.call(op, "", id, limit, func(ctx context.Context, _ *check.Record) error { return f(ctx) }) == nil {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	return false
}

// sentinels are those of the library, by name.
var sentinels = map[string]error{
	"ErrClosed": nats.ErrClosed, "ErrNotConnected": nats.ErrNotConnected, "ErrConnectionLost": nats.ErrConnectionLost,
	"ErrBufferFull": nats.ErrBufferFull, "ErrUnflushed": nats.ErrUnflushed, "ErrDrainTimeout": nats.ErrDrainTimeout,
	"ErrAuthorization": nats.ErrAuthorization, "ErrPermission": nats.ErrPermission, "ErrInvalidConfig": nats.ErrInvalidConfig,
	"ErrInvalidArgument": nats.ErrInvalidArgument, "ErrInvalidSubject": nats.ErrInvalidSubject, "ErrInvalidHeader": nats.ErrInvalidHeader,
	"ErrPayloadTooLarge": nats.ErrPayloadTooLarge, "ErrTimeout": nats.ErrTimeout, "ErrNoResponders": nats.ErrNoResponders,
	"ErrSlowConsumer": nats.ErrSlowConsumer, "ErrUnsubscribed": nats.ErrUnsubscribed, "ErrStopped": nats.ErrStopped,
	"ErrJetStreamDisabled": nats.ErrJetStreamDisabled, "ErrNoStream": nats.ErrNoStream, "ErrStreamNotFound": nats.ErrStreamNotFound,
	"ErrStreamFull": nats.ErrStreamFull, "ErrConsumerNotFound": nats.ErrConsumerNotFound, "ErrOneAnswer": nats.ErrOneAnswer,
	"ErrPullRefused": nats.ErrPullRefused, "ErrBucketNotFound": nats.ErrBucketNotFound, "ErrKeyNotFound": nats.ErrKeyNotFound,
	"ErrObjectNotFound": nats.ErrObjectNotFound, "ErrObjectCorrupt": nats.ErrObjectCorrupt, "ErrAlreadyExists": nats.ErrAlreadyExists,
	"ErrLockLost": nats.ErrLockLost, "ErrConflict": nats.ErrConflict, "ErrMessageNotFound": nats.ErrMessageNotFound,
	"ErrOverlap": nats.ErrOverlap, "ErrWrongStream": nats.ErrWrongStream, "ErrWrongDomain": nats.ErrWrongDomain, "ErrSealed": nats.ErrSealed,
	"ErrFeatureDisabled": nats.ErrFeatureDisabled, "ErrUnsupported": nats.ErrUnsupported, "ErrResourceLimit": nats.ErrResourceLimit,
	"ErrTooManyRequests": nats.ErrTooManyRequests,
}

// kinds returns the names of the sentinels that an error is.
func kinds(err error) (names []string) {
	for name, sentinel := range sentinels {
		if err != nil && errors.Is(err, sentinel) {
			names = append(names, name)
		}
	}
	return names
}

// forever repeats a load until the worker settles.
func (w *worker) forever(ctx context.Context, pause time.Duration, f func(n int, random *rand.Rand)) {
	random := rand.New(rand.NewPCG(w.Seed, rand.Uint64()))
	w.loads.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			if !w.paused.Load() {
				f(n, random)
			}
			select {
			case <-time.After(time.Duration(random.Int64N(int64(2 * pause)))):
			case <-ctx.Done():
			}
		}
	})
}

var errPlanned = errors.New("as planned")
