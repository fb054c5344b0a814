package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/health"
)

const (
	// nearly is the part of a limit from which on more room is needed.
	nearly = 0.8
	// skew is by how much two clocks may differ. Those that are synchronized are within some milliseconds.
	skew = time.Second
)

func (x *examination) jetStream() {
	var account jetstream.AccountInfo
	var f Finding
	x.check("jetstream", x.cfg.JetStreamDomain, func(ctx context.Context) Finding {
		f = x.askAccount(ctx, &account)
		return f
	})
	if x.broken == "" && (f.Status == Failed || !x.cfg.JetStreamEnabled) {
		x.broken = "jetstream: " + f.Detail
	}
	x.check("account limits", "", func(context.Context) Finding {
		if f.Status != Passed {
			return unknown("jetstream: " + f.Detail)
		}
		if full := health.Account(&account); len(full) > 0 {
			return failed(errors.New(strings.Join(full, ", ")), "delete what is needed no more, or have the account's limits raised")
		}
		return passed("")
	})
	for _, name := range x.wants.Streams {
		x.check("stream", name, func(ctx context.Context) Finding { return x.stream(ctx, name) })
	}
	for _, name := range x.wants.Consumers {
		x.check("consumer", name, func(ctx context.Context) Finding { return x.consumer(ctx, name) })
	}
	for _, name := range x.wants.Buckets {
		x.check("bucket", name, func(ctx context.Context) Finding {
			_, err := x.client.GetKeyValue(ctx, name)
			return existing(err, "EnsureKeyValue, or nats kv add "+name)
		})
	}
	for _, name := range x.wants.Objects {
		x.check("object bucket", name, func(ctx context.Context) Finding {
			_, err := x.client.GetObjectStore(ctx, name)
			return existing(err, "EnsureObjectStore, or nats object add "+name)
		})
	}
	x.check("clock", "", x.clock)
}

// api is a subject of the JetStream API.
func (x *examination) api(name string) string {
	prefix := cmp.Or(strings.TrimSuffix(x.cfg.JetStreamAPIPrefix, "."), "$JS.API")
	if x.cfg.JetStreamDomain != "" {
		prefix = "$JS." + x.cfg.JetStreamDomain + ".API"
	}
	return prefix + "." + name
}

func (x *examination) askAccount(ctx context.Context, account *jetstream.AccountInfo) Finding {
	w := x.wants
	switch off := "jetstream_enabled is false"; {
	case x.cfg.JetStreamEnabled:
	case len(w.Streams)+len(w.Consumers)+len(w.Buckets)+len(w.Objects) > 0:
		return failed(errors.New(off), "set jetstream_enabled to true")
	default:
		return unknown(off)
	}
	answer, err := x.client.Request(ctx, x.api("INFO"), nil, 0)
	if err != nil {
		return existing(err, "")
	}
	told := struct {
		Error *jetstream.APIError `json:"error"`
		*jetstream.AccountInfo
	}{AccountInfo: account}
	if err := json.Unmarshal(answer.Data, &told); err != nil {
		return failed(err, "see what it is that answers for JetStream")
	}
	if told.Error != nil {
		return failed(told.Error, "enable JetStream for the account")
	}
	return passed(fmt.Sprintf("%d streams, %d consumers", account.Streams, account.Consumers))
}

// existing is the finding of a question about what must exist, with how it is created.
func existing(err error, create string) Finding {
	switch {
	case errors.Is(err, nats.ErrPermission):
		return unknown(oneLine(err))
	case errors.Is(err, nats.ErrStreamNotFound), errors.Is(err, nats.ErrConsumerNotFound), errors.Is(err, nats.ErrBucketNotFound):
		return failed(err, "create it ("+create+"), or mend the name; it may be in another account or domain")
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrJetStreamDisabled):
		return failed(err, "enable JetStream on the servers; mend jetstream_domain or jetstream_api_prefix, if it is set")
	}
	return ended(err, "see that more than half of the cluster's servers run, so that JetStream has a leader, and see their logs")
}

// near appends what is used of a limit, if it is nearly all.
func near(all []string, what string, used, limit int64) []string {
	if limit > 0 && float64(used) > nearly*float64(limit) {
		all = append(all, fmt.Sprintf("%d of %d %s", used, limit, what))
	}
	return all
}

func (x *examination) stream(ctx context.Context, name string) Finding {
	info, err := x.client.GetStreamInfo(ctx, name)
	if err != nil {
		return existing(err, "EnsureStream, or nats stream add "+name)
	}
	if info.Config.Discard == jetstream.DiscardNew {
		full := near(nil, "messages", int64(info.State.Msgs), info.Config.MaxMsgs)
		if full = near(full, "bytes", int64(info.State.Bytes), info.Config.MaxBytes); len(full) > 0 {
			return failed(errors.New(strings.Join(full, ", ")), "make room, or raise the stream's limit: it refuses messages when it is full")
		}
	}
	return passed(fmt.Sprintf("%d messages of %s", info.State.Msgs, list(info.Config.Subjects)))
}

// consumer looks at a consumer, and whether the user may pull from it and acknowledge.
func (x *examination) consumer(ctx context.Context, target string) Finding {
	stream, name, ok := strings.Cut(target, "/")
	if !ok {
		return failed(errors.New("it names no stream"), `name it "stream/consumer"`)
	}
	info, err := x.client.GetConsumerInfo(ctx, stream, name)
	f := existing(err, "EnsureConsumer, or nats consumer add "+stream+" "+name)
	for _, right := range []string{x.api("CONSUMER.MSG.NEXT." + stream + "." + name), "$JS.ACK." + stream + "." + name + ".1.1.1.1.0"} {
		if f.Status != Failed {
			if g := x.mayPublish(ctx, right); g.Status != Passed {
				return g
			}
		}
	}
	switch {
	case err != nil:
		return f
	case info.Config.DeliverSubject != "":
		return failed(errors.New("it is a push consumer"), "make a pull consumer in its place")
	case info.Paused:
		return failed(fmt.Errorf("it is paused for %v", info.PauseRemaining.Round(time.Second)), "resume it (ResumeConsumer)")
	}
	return passed(fmt.Sprintf("%d messages to deliver, %d to acknowledge", info.NumPending, info.NumAckPending))
}

// clock compares this machine's clock with that of the leader of a stream that is wanted, or, where none can be
// asked for, that of the server.
func (x *examination) clock(ctx context.Context) Finding {
	streams := slices.Clone(x.wants.Streams)
	for _, bucket := range x.wants.Buckets {
		streams = append(streams, "KV_"+bucket)
	}
	for _, bucket := range x.wants.Objects {
		streams = append(streams, "OBJ_"+bucket)
	}
	begin, theirs := time.Now(), time.Time{}
	for _, name := range streams {
		begin = time.Now()
		if info, err := x.client.GetStreamInfo(ctx, name); err == nil {
			theirs = info.TimeStamp
			break
		}
	}
	if u := x.user; theirs.IsZero() && u != nil {
		begin = time.Now()
		if u = x.askUser(ctx); u != nil {
			theirs = u.Server.Time
		}
	}
	const remedy = "synchronize both clocks by NTP"
	switch end := time.Now(); {
	case theirs.IsZero():
		return unknown("the user may ask nobody for the time")
	case theirs.Before(begin.Add(-skew)):
		return failed(fmt.Errorf("JetStream's clock is %v behind this machine's", begin.Sub(theirs).Round(time.Millisecond)), remedy)
	case theirs.After(end.Add(skew)):
		return failed(fmt.Errorf("JetStream's clock is %v ahead of this machine's", theirs.Sub(end).Round(time.Millisecond)), remedy)
	}
	return passed("")
}
