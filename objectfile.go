package nats

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
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
// file keeps its permissions and, where the process may, its owner, a new one gets 0644 less the umask. A link stays
// one: what it leads to is written. The errors are those of GetBytes and of
// the file system; with any of them an existing file is as it was. A process that is killed leaves its
// temporary file, named .nats-*.part.
//
// What is no file, such as a pipe or a device, is written to as it is, as the chunks come: what is wrong with them is
// told when some are written already, and an object that is replaced meanwhile is ErrConflict. A pipe may have its
// reader later, within ctx or Config.RequestTimeout.
func (s *ObjectStore) GetFile(ctx context.Context, name, file string, opts ...ObjectOption) error {
	const op = "get object to a file"
	info, err := os.Stat(file) // where links lead
	switch {
	case err != nil || info.Mode().IsRegular():
		err = s.transfer(ctx, name, opts, func(result *objectReader) error { return writeFile(file, info, result) })
	case info.IsDir():
		err = &os.PathError{Op: "open", Path: file, Err: syscall.EISDIR}
	default:
		err = s.writeThrough(ctx, name, file, objectOptionsOf(opts))
	}
	return s.wrap(op, name, err)
}

// writeThrough writes an object to something that is no file.
func (s *ObjectStore) writeThrough(ctx context.Context, name, file string, opts objectOptions) error {
	result, err := s.open(ctx, name, opts)
	if err != nil {
		return err
	}
	defer func() { _ = result.Close() }()
	opening, cancel := s.client.deadline(ctx)
	defer cancel()
	f, err := openDevice(opening, file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	// A write that waits for the reader of a pipe ends with ctx and with the client.
	end := func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) }
	defer context.AfterFunc(ctx, end)()
	forget, err := s.client.life.OnClose(end)
	if err != nil {
		return err
	}
	defer forget()
	if _, err = io.Copy(f, result); errors.Is(err, os.ErrDeadlineExceeded) {
		err = cmp.Or(fault.Ended(ctx), ErrClosed)
	}
	return err
}

// openDevice opens for writing, and waits for the reader of a pipe.
func openDevice(ctx context.Context, file string) (*os.File, error) {
	for {
		f, err := os.OpenFile(file, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if !errors.Is(err, syscall.ENXIO) {
			return f, err
		}
		if !pause.Sleep(ctx, devicePause) {
			return nil, fault.Joined{fault.Ended(ctx), err}
		}
	}
}

// devicePause is how soon it is looked again whether a pipe has a reader.
const devicePause = 20 * time.Millisecond

// writeFile replaces file by what r yields, unless r fails. Existing describes what is there, if it is not nil.
func writeFile(file string, existing os.FileInfo, r io.Reader) (err error) {
	for range linkDepth { // a link stays one, also one that leads nowhere yet
		target, err := os.Readlink(file)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(file), target)
		}
		file = target
	}
	temp, err := os.OpenFile(tempName(file), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) //nolint:gosec // a download is no secret; the umask decides
	if err != nil {
		return err
	}
	whole := false // nor is it when a callback of the reader panics
	defer func() {
		if !whole {
			_ = temp.Close()
			_ = os.Remove(temp.Name())
		}
	}()
	if existing != nil {
		keepOwner(temp, existing)
		if err := temp.Chmod(existing.Mode().Perm()); err != nil { // the umask does not apply
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
	whole = true
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
