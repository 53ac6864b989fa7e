//go:build !linux

package suite

import (
	"errors"
	"io/fs"
)

func fileSystemSize(string) (int64, error) { return 0, errors.ErrUnsupported }

func groupOf(string) (gid uint32, mode fs.FileMode, err error) {
	return 0, 0, errors.ErrUnsupported
}
