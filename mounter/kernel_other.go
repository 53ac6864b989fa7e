//go:build !linux

package mounter

import (
	"fmt"
	"runtime"

	"github.com/csikit/csikit/backends"
)

func newKernel(*Options) (Kernel, error) { return HostKernel(nil) }

// HostKernel needs Linux.
func HostKernel(Commands) (Kernel, error) {
	return nil, fmt.Errorf("%w: mounting on %s; give Options.Kernel", backends.ErrUnsupported, runtime.GOOS)
}
