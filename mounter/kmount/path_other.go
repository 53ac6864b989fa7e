//go:build !linux

package kmount

import (
	"os"
	"path/filepath"

	"github.com/csikit/csikit/backends"
)

func follow(path string) (string, error)    { return filepath.Abs(path) }
func canonical(path string) (string, error) { return path, nil }

func forceUnmount(path string) error { return backends.ErrUnsupported }

func isFile(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && !st.IsDir()
}
