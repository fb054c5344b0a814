package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// serverStore, set in the environment, makes this program a NATS server that keeps its streams there.
const serverStore = "NATS_BENCH_SERVER_STORE"

// startServer starts this program again, as a server, and returns its URL.
func startServer(store string) (url string, stop func(), err error) {
	binary, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(binary) //nolint:gosec // this program
	cmd.Env = append(os.Environ(), serverStore+"="+store)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("the server's URL: %w", err)
	}
	return strings.TrimSpace(line), stop, nil
}

// serve runs a server until the standard input ends, and prints its URL.
func serve(store string) error {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: store, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("the server did not start")
	}
	fmt.Println(s.ClientURL())
	_, _ = os.Stdin.Read(make([]byte, 1))
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}
