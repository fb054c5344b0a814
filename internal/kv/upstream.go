package kv

import (
	"fmt"
	"reflect"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Upstream's options of watchers, creations and deletions of keys are functions on structs, and both
// the structs and the methods that apply an option are unexported: there is no way to read them but
// reflection. It takes the struct's type from the option's parameter, lets the options set a fresh one,
// and reads its fields by name. What it does not know is an error and never ignored; a test goes
// through all of upstream's options, so that an upgrade cannot change one unnoticed.

// WatchOf returns what upstream's options of a watcher add up to.
func WatchOf(opts []jetstream.WatchOpt) (o Watch, err error) {
	err = read(opts, map[string]any{
		"includeHistory": &o.History, "updatesOnly": &o.UpdatesOnly, "ignoreDeletes": &o.IgnoreDeletes,
		"metaOnly": &o.MetaOnly, "resumeFromRevision": &o.From,
	})
	return o, err
}

// SetWrite sets what upstream's options of a creation or of a deletion say.
func SetWrite[O any](w *Write, opts []O) error {
	var purge bool
	err := read(opts, map[string]any{"revision": &w.Revision, "ttl": &w.TTL, "purge": &purge})
	w.Expect = w.Expect || w.Revision != 0
	switch {
	case err != nil:
		return err
	case w.TTL > 0 && w.Op == jetstream.KeyValueDelete:
		return jetstream.ErrTTLOnDeleteNotSupported
	case w.TTL < 0 || w.TTL%time.Second != 0: // the server counts in seconds, and would round
		return fmt.Errorf("a time to live must be of whole seconds, not %v", w.TTL)
	}
	return nil
}

// read applies opts to a struct of upstream's and copies its fields to where fields point.
func read[T any](opts []T, fields map[string]any) error {
	var theirs reflect.Value
	for _, opt := range opts {
		apply := reflect.ValueOf(opt)
		if !apply.IsValid() {
			continue // nil
		}
		t := apply.Type()
		if t.Kind() != reflect.Func || apply.IsNil() || t.NumIn() != 1 || t.NumOut() != 1 || t.In(0).Kind() != reflect.Pointer {
			return fmt.Errorf("%w: unknown option %T", jetstream.ErrInvalidOption, opt)
		}
		if !theirs.IsValid() {
			theirs = reflect.New(t.In(0).Elem())
		}
		if theirs.Type() != t.In(0) {
			return fmt.Errorf("%w: unknown option %T", jetstream.ErrInvalidOption, opt)
		}
		if err, ok := apply.Call([]reflect.Value{theirs})[0].Interface().(error); ok {
			return err
		}
	}
	if !theirs.IsValid() {
		return nil
	}
	source := theirs.Elem()
	for i := range source.NumField() {
		name, value := source.Type().Field(i).Name, source.Field(i)
		target := reflect.ValueOf(fields[name])
		switch {
		case target.IsValid() && target.Elem().CanInt():
			target.Elem().SetInt(value.Int())
		case target.IsValid() && target.Elem().CanUint():
			target.Elem().SetUint(value.Uint())
		case target.IsValid():
			target.Elem().SetBool(value.Bool())
		case !value.IsZero():
			return fmt.Errorf("%w: unknown option %s", jetstream.ErrInvalidOption, name)
		}
	}
	return nil
}
