package loopfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// renewLoop makes the kernel forget a loop device with its settings, unless
// somebody uses it, and make it anew.
func renewLoop(path string) error {
	var n int
	if _, err := fmt.Sscanf(path, "/dev/loop%d", &n); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	c, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // nothing was written
	if err := unix.IoctlSetInt(int(c.Fd()), unix.LOOP_CTL_REMOVE, n); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	// The device that is asked for next is made when it is missing: this one is
	// for those who expect the same devices as before.
	_ = unix.IoctlSetInt(int(c.Fd()), unix.LOOP_CTL_ADD, n)
	return nil
}

// loopsNamed are the loop devices that were attached under a name.
func loopsNamed(name string) ([]string, error) {
	attached, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, dir := range attached {
		path := "/dev/" + filepath.Base(filepath.Dir(dir))
		is, err := loopHasName(path, name)
		if err != nil {
			return nil, err
		}
		if is {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

func loopHasName(path, name string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // read only
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if errors.Is(err, unix.ENXIO) {
		return false, nil // detached meanwhile
	}
	if err != nil {
		return false, &os.PathError{Op: "LOOP_GET_STATUS64", Path: path, Err: err}
	}
	return unix.ByteSliceToString(info.File_name[:]) == name, nil
}
