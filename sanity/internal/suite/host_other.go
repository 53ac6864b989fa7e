//go:build !linux

package suite

import (
	"context"
	"errors"
	"io/fs"
)

func fileSystemSize(string) (int64, error) { return 0, errors.ErrUnsupported }

func groupOf(string) (gid uint32, mode fs.FileMode, err error) {
	return 0, 0, errors.ErrUnsupported
}

func copyMounts(context.Context) (end func(), err error) { return nil, errors.ErrUnsupported }
