//go:build !unix

package natstest

import (
	"errors"
	"net"
)

func shrinkBacklog(*net.TCPListener) error { return errors.ErrUnsupported }
