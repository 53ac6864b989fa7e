//go:build !linux

package sparse

import (
	"context"
	"errors"
	"os"
)

// Reflink shares no blocks here.
func Reflink(_, _ *os.File) (bool, error) { return false, nil }

// SetNoCOW is for Linux.
func SetNoCOW(*os.File) error { return errors.ErrUnsupported }

// Copy is for Linux.
func Copy(context.Context, *os.File, *os.File, int64, func(done, size int64) error) error {
	return errors.ErrUnsupported
}

// Segment is for Linux.
func Segment(*os.File, int64) (start, end int64, err error) { return 0, 0, errors.ErrUnsupported }
