//go:build unix

package object

import (
	"os"
	"syscall"
)

// keepOwner gives f the owner and the group of existing, as far as the process may.
func keepOwner(f *os.File, existing os.FileInfo) {
	if owner, ok := existing.Sys().(*syscall.Stat_t); ok && f.Chown(int(owner.Uid), int(owner.Gid)) != nil {
		_ = f.Chown(-1, int(owner.Gid))
	}
}
