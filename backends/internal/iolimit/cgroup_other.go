//go:build !linux

package iolimit

import (
	"fmt"
	"runtime"

	"github.com/csikit/csikit/backends"
)

// isCgroup2: there are none.
func isCgroup2(string) (bool, error) {
	return false, fmt.Errorf("%w: cgroups on %s", backends.ErrUnsupported, runtime.GOOS)
}
