//go:build !linux

package kmount

import (
	"path/filepath"

	"github.com/csikit/csikit/backends"
)

func follow(path string) (string, error)    { return filepath.Abs(path) }
func canonical(path string) (string, error) { return path, nil }

func forceUnmount(path string) error { return backends.ErrUnsupported }
