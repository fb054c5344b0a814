//go:build unix

package natstest

import (
	"net"
	"syscall"
)

// shrinkBacklog makes the system keep as few connections as it can for a listener that does not accept.
func shrinkBacklog(l *net.TCPListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = syscall.Listen(int(fd), 0) }); err != nil {
		return err
	}
	return result
}
