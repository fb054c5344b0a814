package nats_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// exampleBucket is exampleClient with a bucket whose keys may expire.
func exampleBucket() (kv *nats.KeyValue, done func()) {
	client, done := exampleClient()
	kv, err := client.CreateKeyValue(context.Background(), "config", nats.WithKeyTTLs(time.Minute))
	if err != nil {
		panic(err)
	}
	return kv, done
}

func exampleSet(kv *nats.KeyValue, pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		if _, err := kv.PutString(context.Background(), pairs[i], pairs[i+1]); err != nil {
			panic(err)
		}
	}
}

// Of two who write over what they have read, the slower one is told.
func ExampleKeyValue_Update() {
	kv, done := exampleBucket()
	defer done()
	ctx := context.Background()

	revision, err := kv.Put(ctx, "feature.flag", []byte("off"))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, value := range []string{"on", "maybe"} {
		_, err := kv.Update(ctx, "feature.flag", []byte(value), revision)
		var conflict *nats.ConflictError
		if errors.As(err, &conflict) {
			fmt.Printf("%s: expected revision %d, and it is %d\n", value, conflict.Expected, conflict.Revision)
			continue
		}
		fmt.Println(value, err)
	}
	// Output:
	// on <nil>
	// maybe: expected revision 1, and it is 2
}

// Modify begins again when another writer was faster.
func ExampleKeyValue_Modify() {
	kv, done := exampleBucket()
	defer done()
	ctx := context.Background()

	for range 3 {
		_, err := kv.Modify(ctx, "visits", func(old []byte) ([]byte, error) {
			n, err := strconv.Atoi("0" + string(old))
			return strconv.AppendInt(nil, int64(n+1), 10), err
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	entry, err := kv.Get(ctx, "visits")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s visits\n", entry.Value())
	// Output:
	// 3 visits
}

// A watcher reports the present values, a nil, and then the changes.
func ExampleKeyValue_Watch() {
	kv, done := exampleBucket()
	defer done()
	ctx := context.Background()
	exampleSet(kv, "feature.a", "on")

	watcher, err := kv.Watch(ctx, "feature.>")
	if err != nil {
		fmt.Println(err)
		return
	}
	for entry := range watcher.Updates() {
		if entry == nil {
			fmt.Println("that is all for now")
			exampleSet(kv, "feature.b", "on")
			continue
		}
		fmt.Printf("%s = %s\n", entry.Key(), entry.Value())
		if entry.Key() == "feature.b" {
			_ = watcher.Stop()
		}
	}
	// Output:
	// feature.a = on
	// that is all for now
	// feature.b = on
}

func ExampleKeyValue_All() {
	kv, done := exampleBucket()
	defer done()
	exampleSet(kv, "api.timeout", "30s", "api.retries", "3", "database.url", "...")

	for entry, err := range kv.All(context.Background(), "api.>") {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s = %s\n", entry.Key(), entry.Value())
	}
	// Output:
	// api.timeout = 30s
	// api.retries = 3
}

// A cache reads from memory. WaitFor makes it know of a write of one's own.
func ExampleKeyValue_Cached() {
	kv, done := exampleBucket()
	defer done()
	ctx := context.Background()

	cache, err := kv.Cached(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = cache.Close() }()
	revision, err := kv.PutJSON(ctx, "limits", map[string]int{"requests": 100})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := cache.WaitFor(ctx, revision); err != nil {
		fmt.Println(err)
		return
	}
	limits, _, err := nats.GetJSON[map[string]int](ctx, cache, "limits")
	fmt.Println(limits["requests"], err)
	_, err = cache.Get("missing")
	fmt.Println(errors.Is(err, nats.ErrKeyNotFound))
	// Output:
	// 100 <nil>
	// true
}

func ExampleChangesJSON() {
	kv, done := exampleBucket()
	defer done()
	ctx := context.Background()
	exampleSet(kv, "limits", `{"requests":100}`)

	type limits struct{ Requests int }
	for change, err := range nats.ChangesJSON[limits](ctx, kv, "limits") {
		if err != nil {
			fmt.Println(err)
			return
		}
		if change.Deleted {
			fmt.Println(change.Key, "is gone")
			return
		}
		fmt.Println(change.Key, "allows", change.Value.Requests)
		if err := kv.Delete(ctx, change.Key); err != nil {
			fmt.Println(err)
			return
		}
	}
	// Output:
	// limits allows 100
	// limits is gone
}

// Only one of those who create a key succeeds, and with a time to live it is free again by itself.
func ExampleKeyValue_Create() {
	kv, done := exampleBucket()
	defer done()
	ctx := context.Background()

	for range 2 {
		_, err := kv.Create(ctx, "session.1", []byte("ada"), jetstream.KeyTTL(time.Minute))
		fmt.Println("exists:", errors.Is(err, nats.ErrAlreadyExists))
	}
	// Output:
	// exists: false
	// exists: true
}

// The context of the work ends before another one can hold the lock.
func ExampleKeyValue_Lock() {
	kv, done := exampleBucket()
	defer done()
	ctx := context.Background()

	lock, err := kv.Lock(ctx, "report", 10*time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = kv.PutString(lock.Context(), "report.by", fmt.Sprint("the holder of token ", lock.Token()))
	if err := errors.Join(err, lock.Unlock(ctx)); err != nil { // ErrLockLost: it may not have been done alone
		fmt.Println(err)
		return
	}
	entry, err := kv.Get(ctx, "report.by")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(entry.Value()))
	// Output:
	// the holder of token 1
}

func ExampleKeyValue_Elect() {
	kv, done := exampleBucket()
	defer done()

	err := kv.Elect(context.Background(), "leader", func(ctx context.Context) error {
		fmt.Println("leading with token", nats.FencingToken(ctx))
		return nil // gives the leadership up; a service waits for ctx
	})
	fmt.Println(err)
	// Output:
	// leading with token 1
	// <nil>
}

// A file comes whole and checked, or not at all.
func ExampleObjectStore_GetFile() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "nats-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()

	store, err := client.CreateObjectStore(ctx, "artifacts")
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := store.PutBytes(ctx, "report.txt", []byte("all is well")); err != nil {
		fmt.Println(err)
		return
	}
	file := filepath.Join(dir, "report.txt")
	err = store.GetFile(ctx, "report.txt", file, nats.WithProgress(func(doneBytes, total int64) {
		fmt.Printf("%d of %d bytes\n", doneBytes, total)
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	content, err := os.ReadFile(file)
	fmt.Println(string(content), err)
	// Output:
	// 11 of 11 bytes
	// all is well <nil>
}

func ExampleObjectStore_List() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	store, err := client.CreateObjectStore(ctx, "artifacts")
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := store.PutString(ctx, "v1.2.3", "a release"); err != nil {
		fmt.Println(err)
		return
	}
	objects, err := store.List(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for info := range objects {
		fmt.Printf("%s (%d bytes)\n", info.Name, info.Size)
	}
	// Output:
	// v1.2.3 (9 bytes)
}

// A job removes what killed processes have left, and leaves alone what may be an upload under way.
func ExampleObjectStore_Sweep() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	store, err := client.EnsureObjectStore(ctx, "artifacts", nats.WithObjectStoreTTL(30*24*time.Hour))
	if err != nil {
		fmt.Println(err)
		return
	}
	removed, err := store.Sweep(ctx, time.Hour)
	fmt.Println(removed, "chunks removed", err)
	// Output:
	// 0 chunks removed <nil>
}
