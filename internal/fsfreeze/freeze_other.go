//go:build !linux

package fsfreeze

import (
	"fmt"
	"os"
	"runtime"

	"github.com/csikit/csikit/backends"
)

// Freeze is Linux's.
func Freeze(_ *os.File, _, _ func() error, _ ...*os.File) (thaw func() error, err error) {
	return nil, ErrNot
}

// Hold is Linux's.
func Hold(*os.File) error { return needLinux() }

// Thaw is Linux's.
func Thaw(*os.File) error { return needLinux() }

func needLinux() error {
	return fmt.Errorf("%w: freezing on %s", backends.ErrUnsupported, runtime.GOOS)
}

func isBtrfsOn(*os.File, string) bool { return false }
