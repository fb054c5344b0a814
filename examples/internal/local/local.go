// Package local finds the NATS server that an example talks to, or starts one inside the example's
// process, so that every example runs on a machine with nothing but Go. A service has no use for it:
// it connects to the URLs of its configuration.
package local

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	defaultURL   = "nats://localhost:4222"
	dialTimeout  = 500 * time.Millisecond
	startTimeout = 20 * time.Second
)

var urlFlag = flag.String("url", "", "the NATS servers, separated by commas (default $ISA_CLOUD_NATS_URLS or "+defaultURL+")")

// Server returns the URLs to connect to and a function to call when all clients are closed. The URLs
// are those of the flag -url, of $ISA_CLOUD_NATS_URLS, or nats://localhost:4222. When nothing
// listens at any of them, Server starts a server with JetStream on a free port, in a temporary
// directory; stop then shuts it down and removes the directory. It prints which of both it is. It
// parses the program's flags.
func Server() (urls []string, stop func(), err error) {
	flag.Parse()
	var addresses []string
	for raw := range strings.SplitSeq(cmp.Or(*urlFlag, os.Getenv("ISA_CLOUD_NATS_URLS"), defaultURL), ",") {
		raw = strings.TrimSpace(raw)
		address, err := addressOf(raw)
		if err != nil {
			return nil, nil, err
		}
		urls, addresses = append(urls, raw), append(addresses, address)
	}
	// The addresses are printed and not the URLs, which may hold a password.
	list := strings.Join(addresses, ", ")
	for _, address := range addresses {
		if listens(address) {
			fmt.Printf("Using the NATS server at %s.\n\n", list)
			return urls, func() {}, nil
		}
	}
	started, stop, err := start()
	if err != nil {
		return nil, nil, fmt.Errorf("start an embedded NATS server: %w", err)
	}
	fmt.Printf("Nothing listens at %s: started an embedded NATS server at %s.\n\n", list, started)
	return []string{started}, stop, nil
}

// addressOf returns what to dial for a NATS URL.
func addressOf(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" {
		return "", errors.New("a NATS URL, from -url or ISA_CLOUD_NATS_URLS, must look like nats://host:4222")
	}
	port := map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port, "4222")), nil
}

func listens(address string) bool {
	conn, err := net.DialTimeout("tcp", address, dialTimeout)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func start() (url string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "nats-example-")
	if err != nil {
		return "", nil, err
	}
	remove := func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "the embedded server's directory is left behind:", err)
		}
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "embedded",
		Host:       "127.0.0.1",
		Port:       server.RANDOM_PORT,
		JetStream:  true,
		StoreDir:   dir,
		NoLog:      true,
		NoSigs:     true,
	})
	if err != nil {
		remove()
		return "", nil, err
	}
	stop = func() {
		s.Shutdown()
		s.WaitForShutdown()
		remove()
	}
	go s.Start()
	if !s.ReadyForConnections(startTimeout) || !s.JetStreamEnabled() {
		stop()
		return "", nil, fmt.Errorf("not ready for connections with JetStream within %v", startTimeout)
	}
	return s.ClientURL(), stop, nil
}
