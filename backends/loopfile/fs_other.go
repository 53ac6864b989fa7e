//go:build !linux

package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// fsFacts are what statfs(2) says of the pool's file system.
type fsFacts struct {
	Type        string
	ID          string
	Total, Free int64
	ReadOnly    bool
}

func (p *pool) facts() (fsFacts, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(p.dir, &st); err != nil {
		return fsFacts{}, fmt.Errorf("statfs: %w", err)
	}
	return fsFacts{Type: "local", Total: int64(st.Blocks) * int64(st.Bsize), Free: int64(st.Bavail) * int64(st.Bsize)}, nil
}

func (fsFacts) allowed(string, bool) error { return nil }

// renameNew moves a directory to a name that must be free: rename(2) replaces an
// empty directory alone, and a volume's is never empty.
func renameNew(from *os.File, name string, to *os.File, newName string) error {
	err := unix.Renameat(int(from.Fd()), name, int(to.Fd()), newName)
	if errors.Is(err, unix.ENOTEMPTY) {
		err = unix.EEXIST
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: filepath.Join(from.Name(), name), New: filepath.Join(to.Name(), newName), Err: err}
	}
	return nil
}

// allocate is Linux's.
func allocate(context.Context, *os.File, int64) error {
	return fmt.Errorf("%w: thick volumes need Linux", backends.ErrInvalid)
}

func overwriteInPlace(*os.File, string) error { return nil }

// renewLoop is Linux's.
func renewLoop(string) error { return backends.ErrUnsupported }

// hasData knows nothing here, and so says yes.
func hasData(*os.File) (bool, error) { return true, nil }
