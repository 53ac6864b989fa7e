//go:build !linux

package walk

import (
	"fmt"
	"runtime"

	"github.com/csikit/csikit/backends"
)

// SameHost: volumes are mounted on Linux only.
func SameHost(string) bool { return false }

// MountsBelow are none.
func MountsBelow(string) ([]string, error) { return nil, nil }

func mountLines(string) ([]string, error) { return nil, nil }
func fileSystemSize(string) (int64, error) {
	return 0, fmt.Errorf("%w: no file systems on %s", backends.ErrUnsupported, runtime.GOOS)
}
