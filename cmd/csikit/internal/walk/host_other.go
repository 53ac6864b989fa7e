//go:build !linux

package walk

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/csikit/csikit/backends"
)

// MountsBelow are none.
func MountsBelow(string) ([]string, error) { return nil, nil }

func mountLines(string) ([]string, error) { return nil, nil }
func fileSystemSize(string) (int64, error) {
	return 0, fmt.Errorf("%w: no file systems on %s", backends.ErrUnsupported, runtime.GOOS)
}

func dropCache(*os.File) {}

func groupOf(string) (uint32, fs.FileMode, error) {
	return 0, 0, fmt.Errorf("%w: no groups on %s", backends.ErrUnsupported, runtime.GOOS)
}
