package lifecycle

import "sync"

// Loop is a call that has its caller do something again and again, for which Close does not wait. It belongs to the
// goroutine of the call.
type Loop struct {
	mu     sync.Mutex // held but while the caller is at work
	forget func()
}

// Loop begins one. When the Life is ending it calls stop, and end as soon as the caller is at work or the Loop is over,
// which stop is to bring about: so Close goes on when what the call has opened is closed.
func (l *Life) Loop(stop, end func()) (*Loop, error) {
	o := &Loop{}
	o.mu.Lock()
	var err error
	o.forget, err = l.OnClose(func() {
		stop()
		o.mu.Lock()
		defer o.mu.Unlock()
		end()
	})
	return o, err
}

// Work lets the caller do something, and tells whether it goes on.
func (o *Loop) Work(caller func() bool) bool {
	o.mu.Unlock()
	defer o.mu.Lock()
	return caller()
}

// Over ends the Loop.
func (o *Loop) Over() {
	o.forget()
	o.mu.Unlock()
}
