package nats

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go/jetstream"
)

// PutFile is Put of a file under its own name, the path included, as upstream has it.
func (s *ObjectStore) PutFile(ctx context.Context, file string, opts ...ObjectOption) (*jetstream.ObjectInfo, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, s.wrap("put file", file, err)
	}
	defer func() { _ = f.Close() }()
	return s.Put(ctx, jetstream.ObjectMeta{Name: file}, f, opts...)
}

// GetFile downloads an object to a file: whole and checked against its digest, or not at all. It
// writes to a temporary file beside the target, syncs it and renames it into place; an existing
// file keeps its permissions, a new one gets 0644 less the umask. The errors are those of GetBytes and of
// the file system; with any of them an existing file is as it was. A process that is killed leaves its
// temporary file, named .nats-*.part.
func (s *ObjectStore) GetFile(ctx context.Context, name, file string, opts ...ObjectOption) error {
	return s.wrap("get object to a file", name, s.transfer(ctx, name, opts, func(result *objectReader) error {
		return writeFile(file, result)
	}))
}

// writeFile replaces file by what r yields, unless r fails.
func writeFile(file string, r io.Reader) (err error) {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target // a link stays one
	}
	temp, err := os.OpenFile(tempName(file), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) //nolint:gosec // a download is no secret; the umask decides
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = temp.Close()
			_ = os.Remove(temp.Name())
		}
	}()
	if info, err := os.Stat(file); err == nil {
		if err := temp.Chmod(info.Mode().Perm()); err != nil { // the umask does not apply
			return err
		}
	}
	if _, err := io.Copy(temp, r); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// tempName returns a name beside file that no other download uses. It has nothing of file's own
// name, which may be as long as names can be.
func tempName(file string) string {
	return filepath.Join(filepath.Dir(file), ".nats-"+rand.Text()+".part")
}

// syncDir makes a rename in dir outlast a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
