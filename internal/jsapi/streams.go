package jsapi

import (
	"context"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Streams returns all streams, asking for a page of them at a time, in the order of their names. An error ends the sequence.
func (a *API) Streams(ctx context.Context) iter.Seq2[*jetstream.StreamInfo, error] {
	return func(yield func(*jetstream.StreamInfo, error) bool) {
		var question struct {
			Offset int `json:"offset"`
		}
		for last := ""; ; {
			var answer struct {
				Refusal
				Total   int                    `json:"total"`
				Streams []jetstream.StreamInfo `json:"streams"`
			}
			if err := a.Ask(ctx, "STREAM.LIST", &question, &answer); err != nil {
				yield(nil, err)
				return
			}
			page := answer.Streams
			if question.Offset > 0 && (len(page) == 0 || page[0].Config.Name > last) { // as with Subjects
				question.Offset /= 2
				continue
			}
			for i := range page {
				if page[i].Config.Name <= last {
					continue
				}
				if last = page[i].Config.Name; !yield(&page[i], nil) {
					return
				}
			}
			if question.Offset += len(page); question.Offset >= answer.Total || len(page) < 2 {
				return
			}
			question.Offset--
		}
	}
}

// Purge deletes messages of a stream, but none that is stored after the call has begun. Ctx must have a deadline.
func (a *API) Purge(ctx context.Context, stream string, of jetstream.StreamPurgeRequest) error {
	if of.Sequence == 0 && of.Keep == 0 { // to purge twice is to purge what came in between
		info, err := a.StreamInfo(ctx, stream)
		if err != nil {
			return err
		}
		of.Sequence = info.State.LastSeq + 1
	}
	return a.Ask(ctx, "STREAM.PURGE."+stream, of, nil)
}

// DeleteMessage removes one message of a stream, as upstream's does.
func (a *API) DeleteMessage(ctx context.Context, stream string, sequence uint64) error {
	question := struct {
		Sequence uint64 `json:"seq"`
		NoErase  bool   `json:"no_erase"`
	}{sequence, true}
	return a.Ask(ctx, "STREAM.MSG.DELETE."+stream, question, nil)
}

// Overlap adds to err, when it says that others store the subjects of a stream, who they are.
func (a *API) Overlap(ctx context.Context, cfg *jetstream.StreamConfig, err error) error {
	if fault.CodeOf(err) != fault.CodeSubjectOverlap {
		return err
	}
	causes := fault.Joined{err}
	for _, subject := range cfg.Subjects {
		names, _ := a.StreamsOf(ctx, subject) // who may not ask hears no names
		for _, name := range names {
			if name != cfg.Name {
				causes = append(causes, fmt.Errorf("the stream %q stores %q", name, subject))
			}
		}
	}
	return causes
}
