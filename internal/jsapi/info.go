package jsapi

import (
	"context"
	"maps"

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

// Subjects asks for the subjects of a stream's messages that match filter, and how many messages each has.
func (a *API) Subjects(ctx context.Context, stream, filter string) (map[string]uint64, error) {
	subjects := make(map[string]uint64)
	for offset, total := 0, 1; offset < total; { // the server answers with so many at a time
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
		maps.Copy(subjects, answer.State.Subjects)
		offset += max(len(answer.State.Subjects), 1)
		total = answer.Total
	}
	return subjects, nil
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
