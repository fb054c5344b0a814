package states

import (
	"context"
	"time"
)

// Acknowledgements of messages that were pulled while the client was connected.
var messageCalls = []Call{
	{Name: "Message.Ack", Kind: Sends, Handle: true, Do: func(_ context.Context, s *Scene) error { return s.pulled[0].Ack() }},
	{Name: "Message.Nak", Kind: Sends, Handle: true, Do: func(_ context.Context, s *Scene) error { return s.pulled[1].Nak() }},
	{Name: "Message.NakWithDelay", Kind: Sends, Handle: true, Do: func(_ context.Context, s *Scene) error {
		return s.pulled[2].NakWithDelay(time.Second)
	}},
	{Name: "Message.Term", Kind: Sends, Handle: true, Do: func(_ context.Context, s *Scene) error { return s.pulled[3].Term("test") }},
	{Name: "Message.InProgress", Kind: Sends, Handle: true, Do: func(_ context.Context, s *Scene) error { return s.pulled[4].InProgress() }},
	{Name: "Message.AckSync", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error { return s.pulled[5].AckSync(ctx) }},
	{Name: "Client.AckMessage", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		return s.Client.AckMessage(ctx, s.pulled[6])
	}},
	{Name: "Message.Metadata", Handle: true, Do: func(_ context.Context, s *Scene) error {
		_, err := s.pulled[0].Metadata()
		return err
	}},
}
