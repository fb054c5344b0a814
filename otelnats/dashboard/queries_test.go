//go:build prometheus

package dashboard

import (
	"context"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every query of the dashboard has an answer of the Prometheus that the variable PROMETHEUS names.
func TestDashboardQueries(t *testing.T) {
	metrics, err := url.Parse(service(t))
	require.NoError(t, err)
	dir := t.TempDir()
	config := "scrape_configs: [{job_name: orders, scrape_interval: 500ms, scrape_timeout: 500ms, static_configs: [{targets: ['" + metrics.Host + "']}]}]\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600))
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	server := exec.CommandContext(ctx, os.Getenv("PROMETHEUS"), "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	var log strings.Builder
	server.Stdout, server.Stderr = &log, &log
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		cancel()
		_ = server.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for _, query := range queries(t) {
		assert.EventuallyWithT(t, func(t *assert.CollectT) {
			answer, err := get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(query))
			require.NoError(t, err)
			assert.Contains(t, answer, `"status":"success"`)
			assert.Contains(t, answer, `"metric":`, "a series")
		}, time.Minute, 100*time.Millisecond, query)
	}
}
