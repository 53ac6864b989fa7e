//go:build !linux

package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/csikit/csikit/backends"
)

const (
	envInside  = "CSIKIT_DEMO_INSIDE"
	insideUser = "user"
)

func unsupported() error {
	return fmt.Errorf("%w: the demo mounts disks, which needs Linux and not %s", backends.ErrUnsupported, runtime.GOOS)
}

func enterNamespace(context.Context, io.Writer, ...string) error { return unsupported() }
