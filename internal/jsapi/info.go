package jsapi

import (
	"context"
	"maps"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// Account asks for the account's limits, and what it uses of them.
func (a *API) Account(ctx context.Context) (*jetstream.AccountInfo, error) {
	var answer struct {
		Refusal
		jetstream.AccountInfo
	}
	if err := a.Ask(ctx, "INFO", nil, &answer); err != nil {
		return nil, err
	}
	return &answer.AccountInfo, nil
}

// StreamInfo asks for a stream's configuration and state. Without a deadline in ctx, the API's own time applies,
// as to what follows.
func (a *API) StreamInfo(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	var answer struct {
		Refusal
		jetstream.StreamInfo
	}
	if err := a.Ask(ctx, "STREAM.INFO."+stream, nil, &answer); err != nil {
		return nil, err
	}
	return &answer.StreamInfo, nil
}

// Subjects asks for the subjects of a stream's messages that match filter, and how many messages each has. Those that are
// there all the time are never left out.
func (a *API) Subjects(ctx context.Context, stream, filter string) (map[string]uint64, error) {
	ctx, cancel := a.conn.Deadline(ctx)
	defer cancel()
	subjects := make(map[string]uint64)
	for offset, last := 0, ""; ; { // the server answers with so many at a time, in their order
		question := struct {
			Filter string `json:"subjects_filter"`
			Offset int    `json:"offset"`
		}{filter, offset}
		var answer struct {
			Refusal
			Total int `json:"total"`
			State struct {
				Subjects map[string]uint64 `json:"subjects"`
			} `json:"state"`
		}
		if err := a.Ask(ctx, "STREAM.INFO."+stream, question, &answer); err != nil {
			return nil, err
		}
		page := answer.State.Subjects
		if offset == 0 && (len(page) == 0 || len(page) >= answer.Total) {
			return page, nil
		}
		names := slices.Sorted(maps.Keys(page))
		if offset > 0 && (len(names) == 0 || names[0] > last) { // so many have gone that the others have moved up
			offset /= 2
			continue
		}
		maps.Copy(subjects, page)
		last = names[len(names)-1]
		if offset += len(names); offset >= answer.Total {
			return subjects, nil
		}
		offset -= len(names)/100 + 1 // the next page begins where this one ends, though some may go in between
	}
}

// ConsumerInfo asks for a consumer's configuration and progress.
func (a *API) ConsumerInfo(ctx context.Context, stream, consumer string) (*jetstream.ConsumerInfo, error) {
	var answer struct {
		Refusal
		jetstream.ConsumerInfo
	}
	if err := a.Ask(ctx, "CONSUMER.INFO."+stream+"."+consumer, nil, &answer); err != nil {
		return nil, err
	}
	return &answer.ConsumerInfo, nil
}
