package mounter

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// exchange swaps two files of one directory in one step. fs.ErrNotExist: one of
// them is missing. errors.ErrUnsupported: the file system cannot.
func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return err
}
