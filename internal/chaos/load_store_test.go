package chaos_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/chaos/check"
)

// reader is a source that cannot be read again.
type reader struct{ data []byte }

func (r *reader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// read downloads an object and compares it with what its description says.
func (w *worker) read(ctx context.Context, r *check.Record) error {
	result, err := w.store.Get(ctx, r.Key)
	if err != nil {
		return err
	}
	defer func() { _ = result.Close() }()
	data, err := io.ReadAll(result)
	if err != nil {
		return err
	}
	info, err := result.Info() // of what was read: it may have been replaced meanwhile
	if err != nil {
		return err
	}
	seed, err := strconv.ParseUint(info.Description, 10, 64)
	if err != nil || !bytes.Equal(data, check.Content(seed, len(data))) || uint64(len(data)) != info.Size {
		r.N = 1
	}
	return nil
}

// own writes keys that nobody else writes, and waits until the cache has what was written.
func (w *worker) own(n int, random *rand.Rand) {
	key, value := fmt.Sprint(check.OwnKeys, w.Name, ".", random.IntN(5)), fmt.Sprint(n)
	if random.IntN(10) == 0 {
		_ = w.call("kv/delete", key, "", patience(random), func(ctx context.Context, _ *check.Record) error { return w.keys.Delete(ctx, key) })
		return
	}
	var revision uint64
	if w.call("kv/put", key, value, patience(random), func(ctx context.Context, r *check.Record) (err error) {
		revision, err = w.keys.Put(ctx, key, []byte(value))
		r.Seq = revision
		return err
	}) != nil || random.IntN(4) > 0 {
		return
	}
	_ = w.call("kv/cached", key, value, patience(random), func(ctx context.Context, r *check.Record) error {
		r.N = revision
		if err := w.cache.WaitFor(ctx, revision); err != nil {
			return err
		}
		entry, err := w.cache.Get(key)
		if err == nil {
			r.Seq = entry.Revision()
		}
		return err
	})
}

// shared writes keys that all workers write.
func (w *worker) shared(n int, random *rand.Rand) {
	if n%5 == 0 {
		key := fmt.Sprint(check.OnceKeys, n/5)
		_ = w.call("kv/create", key, w.Name, patience(random), func(ctx context.Context, r *check.Record) (err error) {
			r.Seq, err = w.keys.Create(ctx, key, []byte(w.Name))
			return err
		})
		return
	}
	key := fmt.Sprint(check.CountKeys, random.IntN(2))
	_ = w.call("kv/modify", key, "", patience(random), func(ctx context.Context, r *check.Record) (err error) {
		r.Seq, err = w.keys.Modify(ctx, key, func(old []byte) ([]byte, error) {
			n, err := strconv.Atoi("0" + string(old))
			return fmt.Append(nil, n+1), err
		})
		return err
	})
}
