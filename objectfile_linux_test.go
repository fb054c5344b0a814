package nats_test

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A directory that may be written and not read has the file in the end, which is no failure.
func TestObjectGetFileInADirectoryThatCannotBeRead(t *testing.T) {
	t.Parallel()
	store, ctx := oneObject(t, "content")
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	require.NoError(t, os.Chmod(dir, 0o333))
	t.Cleanup(func() { assert.NoError(t, os.Chmod(dir, 0o700)) }) // for others to remove it
	file := filepath.Join(dir, "file")
	var thread sync.WaitGroup
	thread.Go(func() {
		if os.Getuid() == 0 { // who may read everything
			runtime.LockOSThread() // and the thread ends with the goroutine
			if !assert.NoError(t, syscall.Setfsuid(65534)) {
				return
			}
		}
		assert.NoError(t, store.GetFile(ctx, "x", file))
	})
	thread.Wait()
	require.NoError(t, os.Chmod(dir, 0o700))
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "content", string(got))
}
