package mounter

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/csikit/csikit/internal/faultpoint"
)

// makeDir makes the target directory and its parents.
func makeDir(path string) (made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return false, unavailable("target path: %w", err)
	}
	err = os.Mkdir(path, 0o750)
	if !errors.Is(err, fs.ErrExist) {
		return err == nil, soften(err)
	}
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return false, unavailable("target path: %w", err)
	case !st.IsDir():
		return false, refuse("target path %s exists and is no directory", path)
	}
	return false, emptyDir(path)
}

// emptyDir refuses a directory that holds anything: under a mount nobody would
// find it, and no unpublish could remove the directory. Old kubelets make an
// empty one.
func emptyDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return unavailable("target path: %w", err)
	}
	names, err := d.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return unavailable("target path: %w", err)
	}
	if len(names) > 0 {
		return refuse("target path %s holds files of the host's own disk (%q); move them away", path, names[0])
	}
	return nil
}

// makeFile makes the empty file onto which a device node is bound.
func makeFile(path string) (made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return false, unavailable("target path: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o640)
	if err == nil {
		return true, f.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return false, unavailable("target path: %w", err)
	}
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return false, unavailable("target path: %w", err)
	case !st.Mode().IsRegular() || st.Size() != 0:
		return false, refuse("target path %s exists and is no empty file", path)
	}
	return false, nil
}

// removeTarget removes the mount point and nothing else: an empty directory or
// an empty file. What holds anything is not the engine's.
func removeTarget(path string) error {
	st, err := os.Lstat(path)
	switch {
	case missing(err):
		return nil
	case err != nil:
		return unavailable("target path: %w", err)
	case !st.IsDir() && (!st.Mode().IsRegular() || st.Size() != 0):
		return unavailable("target path %s is not the empty file or directory of a target (%s, %d bytes); it is left alone", path, st.Mode(), st.Size())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unavailable("target path: %w", err)
	}
	faultpoint.Reach("mounter.target.removed")
	return nil
}
