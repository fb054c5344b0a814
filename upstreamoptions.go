package nats

import (
	"fmt"
	"reflect"

	"github.com/nats-io/nats.go/jetstream"
)

// Upstream's options of watchers, creations and deletions of keys are functions on structs, and both
// the structs and the methods that apply an option are unexported: there is no way to read them but
// reflection. It takes the struct's type from the option's parameter, lets the options set a fresh one,
// and reads its fields by name. What it does not know is an error and never ignored; a test goes
// through all of upstream's options, so that an upgrade cannot change one unnoticed.

// watchOptions are what upstream's options of a watcher add up to.
type watchOptions struct {
	includeHistory     bool
	updatesOnly        bool
	ignoreDeletes      bool
	metaOnly           bool
	resumeFromRevision uint64
}

func watchOptionsOf(opts []jetstream.WatchOpt) (o watchOptions, err error) {
	err = readOptions(opts, map[string]any{
		"includeHistory": &o.includeHistory, "updatesOnly": &o.updatesOnly, "ignoreDeletes": &o.ignoreDeletes,
		"metaOnly": &o.metaOnly, "resumeFromRevision": &o.resumeFromRevision,
	})
	return o, err
}

// readOptions applies opts to a struct of upstream's and copies its fields to where fields point.
func readOptions[T any](opts []T, fields map[string]any) error {
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
