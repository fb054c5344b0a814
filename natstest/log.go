package natstest

import (
	"fmt"
	"sync"
	"testing"
)

// serverLog is the logger of an embedded server. It is installed even when nobody asked for a log:
// a server that cannot start says why only here, and its own logger would exit the process.
type serverLog struct {
	mu    sync.Mutex
	tb    testing.TB // nil when the log is not wanted, or the test is over
	name  string
	fatal error
}

// failure returns the error that made the server give up its start, or nil.
func (l *serverLog) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

// detach silences the log: a test panics when it is written to after its end.
func (l *serverLog) detach() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tb = nil
}

func (l *serverLog) write(level, format string, v []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tb != nil {
		l.tb.Logf("[%s] %s %s", l.name, level, fmt.Sprintf(format, v...))
	}
}

// Fatalf keeps the error instead of exiting: the server's Start returns after it.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.write("FTL", format, v)
	err := fmt.Errorf(format, v...)
	for _, a := range v {
		if cause, ok := a.(error); ok {
			err = &startError{text: err.Error(), cause: cause}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == nil {
		l.fatal = err
	}
}

func (l *serverLog) Noticef(format string, v ...any) { l.write("INF", format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.write("WRN", format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.write("ERR", format, v) }
func (l *serverLog) Debugf(format string, v ...any)  { l.write("DBG", format, v) }
func (l *serverLog) Tracef(format string, v ...any)  { l.write("TRC", format, v) }

// startError has the server's own text and still lets errors.As find the cause.
type startError struct {
	text  string
	cause error
}

func (e *startError) Error() string { return e.text }
func (e *startError) Unwrap() error { return e.cause }
