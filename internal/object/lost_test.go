package object_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/object"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// behind returns a store behind a proxy, a JetStream past it, and what the store reports.
func behind(t *testing.T) (*object.Store, *natstest.Proxy, jetstream.JetStream, *told) {
	t.Helper()
	s := natstest.RunServer(t)
	near := conntest.Raw(t, s.URL())
	js, err := jetstream.New(near)
	require.NoError(t, err)
	proxy := natstest.NewProxy(t, s.URL())
	life := lifecycle.New()
	t.Cleanup(life.End)
	store, _, told := newStoreAt(t, life, proxy.URL(), jsapi.Options{})
	return store, proxy, js, told
}

// What an upload has replaced goes, too, where it could not be told at once whether the upload is whole.
func TestPutWhileNobodyTells(t *testing.T) {
	t.Parallel()
	store, proxy, _, told := behind(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	old, err := store.Put(ctx, jetstream.ObjectMeta{Name: "x"}, strings.NewReader("old"), object.Options{})
	require.NoError(t, err)
	given, giveUp := context.WithCancel(ctx)
	defer giveUp()
	require.ErrorIs(t, store.PutSlowly(given, "x", func() {
		proxy.BlackHole()
		giveUp()
	}), context.Canceled)
	proxy.Restore()
	require.Eventually(t, func() bool {
		n, err := store.StoredChunks(ctx, old.NUID)
		return err == nil && n == 0
	}, patience, 10*time.Millisecond)
	got, err := store.Bytes(ctx, "x", object.Options{})
	require.NoError(t, err)
	assert.Equal(t, "content", string(got))
	assert.Empty(t, told.Said())
}

// A deletion does not wait for an answer about the chunks, which go all the same.
func TestDeleteDoesNotWaitForTheChunks(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var deaf atomic.Bool
	deaf.Store(true)
	conntest.Forward(t, s.URL(), func(_ *natsgo.Conn, m *natsgo.Msg) bool {
		return !deaf.Load() || !strings.HasPrefix(m.Subject, "$JS.API.STREAM.PURGE.")
	})
	life := lifecycle.New()
	t.Cleanup(life.End)
	store, _, told := newStoreAt(t, life, s.URL(), jsapi.Options{Prefix: conntest.ForwardPrefix})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	put, err := store.Put(ctx, jetstream.ObjectMeta{Name: "x"}, strings.NewReader("content"), object.Options{})
	require.NoError(t, err)
	begun := time.Now()
	require.NoError(t, store.Delete(ctx, "x"))
	assert.Less(t, time.Since(begun), patience/3)
	_, err = store.Info(ctx, "x", false)
	require.ErrorIs(t, err, jetstream.ErrObjectNotFound)
	deaf.Store(false)
	require.Eventually(t, func() bool {
		n, err := store.StoredChunks(ctx, put.NUID)
		return err == nil && n == 0
	}, patience, 10*time.Millisecond)
	assert.Empty(t, told.Said())
}

// A bucket that takes smaller messages than before gets smaller chunks after the first refusal.
func TestBucketTakesLessThanBefore(t *testing.T) {
	t.Parallel()
	store, js, _ := newStore(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	put := func() error {
		_, err := store.Put(ctx, jetstream.ObjectMeta{Name: "x"}, strings.NewReader(strings.Repeat("content", 10_000)), object.Options{})
		return err
	}
	require.NoError(t, put())
	stream, err := js.Stream(ctx, object.StreamPrefix+"b")
	require.NoError(t, err)
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgSize = 10_000
	_, err = js.UpdateStream(ctx, cfg)
	require.NoError(t, err)
	require.ErrorIs(t, put(), fault.ErrPayloadTooLarge)
	require.NoError(t, put())
}

// An object that is changed while all are listed is listed once.
func TestListWhileOneIsChanged(t *testing.T) {
	t.Parallel()
	store, js, _ := newStore(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	const n = 2000
	for i := range n {
		name := fmt.Sprint(i)
		_, err := js.PublishAsync("$O.b.M."+base64.URLEncoding.EncodeToString([]byte(name)), fmt.Appendf(nil, `{"name":%q,"nuid":"N%s"}`, name, name))
		require.NoError(t, err)
		if i%1000 == 999 { // upstream refuses too many at once
			<-js.PublishAsyncComplete()
		}
	}
	changing, stop := context.WithCancel(ctx)
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		for i := 0; changing.Err() == nil; i++ {
			name := fmt.Sprint(i % 2)
			_ = store.Describe(changing, name, jetstream.ObjectMeta{Name: name, Description: fmt.Sprint(i)})
		}
	}()
	for range 10 {
		objects, err := store.List(ctx, false)
		require.NoError(t, err)
		require.Equal(t, n, len(objects)) //nolint:testifylint // Len shows them all
	}
	stop()
	<-changed
}

// A Sweep whose connection breaks is told of more than the last chunk of an upload under way, which it leaves alone.
func TestSweepOverABreak(t *testing.T) {
	t.Parallel()
	store, proxy, js, _ := behind(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	publish := func(upload string) {
		_, err := js.Publish(ctx, "$O.b.C."+upload, nil)
		require.NoError(t, err)
	}
	const n, age = 800, 6 * time.Second
	for i := range n {
		publish(fmt.Sprint("orphan", i))
	}
	publish("upload")
	time.Sleep(age)
	publish("upload")
	proxy.Throttle(20 << 10)
	removed := make(chan int)
	go func() {
		n, err := store.Sweep(ctx, age)
		assert.NoError(t, err)
		removed <- n
	}()
	stream, err := js.Stream(ctx, object.StreamPrefix+"b")
	require.NoError(t, err)
	require.Eventually(t, func() bool { // it has asked for more than at first
		for info := range stream.ListConsumers(ctx).Info() {
			if info.Delivered.Consumer > 256 {
				return true
			}
		}
		return false
	}, patience, 10*time.Millisecond)
	proxy.Cut()
	proxy.Restore()
	assert.Equal(t, n, <-removed)
	kept, err := store.StoredChunks(ctx, "upload")
	require.NoError(t, err)
	assert.EqualValues(t, 2, kept)
}
