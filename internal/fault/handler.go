package fault

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// PanicError is what the panic of a function that is not ours becomes.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("%v: %v", ErrHandlerPanic, e.Value) }

func (e *PanicError) Unwrap() error { return ErrHandlerPanic }

// Panicked returns the error of a panic with that value. It is called by the function that recovers.
func Panicked(value any) error { return &PanicError{Value: value, Stack: debug.Stack()} }

// Contained calls f on a goroutine of its own, so that its end is an error, as its panic is.
func Contained(f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		returned := false
		defer func() {
			if value := recover(); value != nil {
				err = Panicked(value)
			} else if !returned {
				err = Exited()
			}
		}()
		err = f()
		returned = true
	}()
	<-done
	return err
}

// Exited is the error of a handler that ended its goroutine, as testing's FailNow does. No call
// returns from that: it is made in a deferred function, and another goroutine goes on.
func Exited() error { return Panicked("it ended its goroutine (runtime.Goexit)") }

// Attrs returns what to log of an error: nothing of none, and of a panic the stack, too.
func Attrs(err error) (attrs []any) {
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	if p, ok := errors.AsType[*PanicError](err); ok {
		attrs = append(attrs, "stack", string(p.Stack))
	}
	return attrs
}

// Answered is the error of a handler whose caller was answered with an error.
type Answered struct { //nolint:errname // it tells of the answer
	Told  string // what the caller knows
	Cause error  // what it does not know; nil when it knows all
}

func (e *Answered) Error() string {
	if e.Cause == nil {
		return e.Told
	}
	return e.Cause.Error()
}

func (e *Answered) Unwrap() error { return e.Cause }
