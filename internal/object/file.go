package object

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// File downloads an object to a file, or through what is no file.
func (s *Store) File(ctx context.Context, name, file string, opts Options) error {
	const op = "get object to a file"
	info, err := os.Stat(file) // where links lead
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Mode().IsRegular():
		err = s.transfer(ctx, name, opts, func(result *Reader) error { return writeFile(file, info, result) })
	case err != nil:
	case info.IsDir():
		err = &os.PathError{Op: "open", Path: file, Err: syscall.EISDIR}
	default:
		err = s.writeThrough(ctx, name, file, opts)
	}
	return s.wrap(op, name, err)
}

// writeThrough writes an object to something that is no file.
func (s *Store) writeThrough(ctx context.Context, name, file string, opts Options) error {
	result, err := s.open(ctx, name, opts)
	if err != nil {
		return err
	}
	defer func() { _ = result.Close() }()
	opening, cancel := s.conn.Deadline(ctx)
	defer cancel()
	f, err := openDevice(opening, file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	// A write that waits for the reader of a pipe ends with ctx and with the client.
	end := func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) }
	defer context.AfterFunc(ctx, end)()
	forget, err := s.life.OnClose(end)
	if err != nil {
		return err
	}
	defer forget()
	if _, err = io.Copy(f, result); errors.Is(err, os.ErrDeadlineExceeded) {
		err = cmp.Or(fault.Ended(ctx), fault.ErrClosed)
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
	for range fileLinks { // a link stays one, also one that leads nowhere yet
		target, err := os.Readlink(file)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = dirOf(file) + target
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
	if dir, err := os.Open(cmp.Or(dirOf(file), ".")); err == nil { // so that it outlasts a crash, where the directory lets it
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}

// fileLinks are more links in a row than a file system follows.
const fileLinks = 256

// dirOf returns what stands before the last element of a path, as it is: in a cleaned one, "link/.." would be where the
// link is, and not where it leads.
func dirOf(file string) string {
	dir, _ := filepath.Split(file)
	return dir
}

// tempName returns a name beside file that no other download uses. It has nothing of file's own
// name, which may be as long as names can be.
func tempName(file string) string { return dirOf(file) + ".nats-" + rand.Text() + ".part" }
