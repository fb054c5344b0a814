package states

import (
	"context"
	"io"
	"path/filepath"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

var objectCalls = []Call{
	{Name: "Client.CreateObjectStore", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.CreateObjectStore(ctx, "new", nats.WithObjectStoreStorage(jetstream.MemoryStorage))
		return err
	}},
	{Name: "Client.EnsureObjectStore", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.EnsureObjectStore(ctx, "ensured", nats.WithObjectStoreStorage(jetstream.MemoryStorage))
		return err
	}},
	{Name: "Client.GetObjectStore", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.GetObjectStore(ctx, "files")
		return err
	}},
	{Name: "Client.DeleteObjectStore", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		return s.Client.DeleteObjectStore(ctx, "old")
	}},
	{Name: "Client.ObjectStores", Kind: Stores, Do: func(ctx context.Context, s *Scene) error { return last(s.Client.ObjectStores(ctx)) }},

	{Name: "ObjectStore.Put", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.Put(ctx, jetstream.ObjectMeta{Name: "put"}, &zeros{left: 1000})
		return err
	}},
	{Name: "ObjectStore.PutBytes", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.PutBytes(ctx, "bytes", []byte("x"))
		return err
	}},
	{Name: "ObjectStore.PutString", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.PutString(ctx, "string", "x")
		return err
	}},
	{Name: "ObjectStore.PutFile", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.PutFile(ctx, s.file)
		return err
	}},
	{Name: "ObjectStore.Get", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		object, err := s.store.Get(ctx, "a")
		if err != nil {
			return err
		}
		defer func() { _ = object.Close() }()
		_, err = io.Copy(io.Discard, object)
		return err
	}},
	{Name: "ObjectStore.GetBytes", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.GetBytes(ctx, "a")
		return err
	}},
	{Name: "ObjectStore.GetString", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.GetString(ctx, "a")
		return err
	}},
	{Name: "ObjectStore.GetFile", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		return s.store.GetFile(ctx, "a", filepath.Join(filepath.Dir(s.file), "got"))
	}},
	{Name: "ObjectStore.Upstream", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.Upstream().GetBytes(ctx, "a")
		return err
	}},
	{Name: "ObjectStore.GetInfo", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.GetInfo(ctx, "a")
		return err
	}},
	{Name: "ObjectStore.List", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.List(ctx)
		return err
	}},
	{Name: "ObjectStore.Status", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.Status(ctx)
		return err
	}},
	{Name: "ObjectStore.UpdateMeta", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		return s.store.UpdateMeta(ctx, "described", jetstream.ObjectMeta{Name: "described", Description: "x"})
	}},
	{Name: "ObjectStore.AddLink", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.AddLink(ctx, "link", s.object)
		return err
	}},
	{Name: "ObjectStore.AddBucketLink", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.AddBucketLink(ctx, "bucket", s.store)
		return err
	}},
	{Name: "ObjectStore.Delete", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		return s.store.Delete(ctx, "deleted")
	}},
	{Name: "ObjectStore.Sweep", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.store.Sweep(ctx, long)
		return err
	}},
	{Name: "ObjectStore.Seal", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error { return s.sealed.Seal(ctx) }},
	{Name: "ObjectStore.Watch", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		watcher, err := s.store.Watch(ctx)
		if err != nil {
			return err
		}
		return watcher.Stop()
	}},
}

// zeros is an object of that many bytes, given slowly.
type zeros struct{ left int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.left, 100)
	clear(p[:n])
	z.left -= n
	return n, nil
}
