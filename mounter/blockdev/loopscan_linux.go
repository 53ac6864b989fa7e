package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// LoopOf finds every loop device on the file with these numbers, parts of it
// (Loop.Offset) included. It asks each attached loop device of the machine, so it
// is for the start, or for a lost record. An error is an answer that is not
// complete, whatever was found.
//
// A loop device whose file is on a dead network file system may hang the call.
func LoopOf(dev, ino uint64) ([]Loop, error) {
	entries, err := os.ReadDir(filepath.Join(sysfs, "block"))
	if err != nil {
		return nil, err
	}
	var loops []Loop
	for _, e := range entries {
		n, err := loopNumber("/dev/" + e.Name())
		if err != nil {
			continue // another kind of disk
		}
		l, err := loopAt(n)
		if err != nil {
			return loops, err
		}
		if l != nil && l.Ino == ino && l.Dev == normal(dev) {
			loops = append(loops, *l)
		}
	}
	return loops, nil
}

// loopAt is nil when device n is not attached, or gone.
func loopAt(n int) (l *Loop, err error) {
	// Opening every free device would cost more than all the rest.
	if attached, err := isAttached("loop" + strconv.Itoa(n)); err != nil || !attached {
		return nil, err
	}
	return loopStat(n)
}

func loopStat(n int) (l *Loop, err error) {
	d, err := openLoop(context.Background(), n, false)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	info, err := loopStatus(d.f)
	switch {
	case errors.Is(err, unix.ENXIO):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: LOOP_GET_STATUS64: %w: %w", d.path, err, backends.ErrUnavailable)
	}
	return loopOf(d, n, info)
}

// isAttached looks for the directory that an attached loop device has in sysfs.
func isAttached(name string) (bool, error) {
	_, err := os.Stat(filepath.Join(sysfs, "block", name, "loop"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// LoopIs reports whether the loop device at path is on the file with these
// numbers, and shows all of it.
func LoopIs(path string, dev, ino uint64) (bool, error) {
	n, err := loopNumber(path)
	if err != nil {
		return false, err
	}
	l, err := loopAt(n)
	if err != nil || l == nil {
		return false, err
	}
	return l.Ino == ino && l.Dev == normal(dev) && l.Offset == 0 && l.SizeLimit == 0, nil
}

// ResizeLoop makes the loop device at path as big as its file is by now. The
// device must be on the file with these numbers (else a *MismatchError).
func ResizeLoop(path string, dev, ino uint64) (err error) {
	n, err := loopNumber(path)
	if err != nil {
		return err
	}
	d, err := openLoop(context.Background(), n, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.verifyBacking(dev, ino); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(int(d.f.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return d.errorf("LOOP_SET_CAPACITY", err)
	}
	return nil
}
