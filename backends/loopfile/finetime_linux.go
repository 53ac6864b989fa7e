package loopfile

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// stampNow is a stamp that a write from now on changes. Where the file system
// counts time in steps it waits for the end of one.
func (p *pool) stampNow(ctx context.Context, f *os.File) (stamp, error) {
	p.tryTimes.Do(func() { p.fineTimes = p.probeTimes() })
	if p.fineTimes {
		return stampOf(f)
	}
	return settled(ctx, f)
}

// probeTimes says whether each write that comes after a look at a file gives it
// another time (Linux 6.13: multigrain timestamps). In steps of milliseconds, most
// of these writes have the same.
func (p *pool) probeTimes() bool {
	fd, err := unix.Openat(int(p.tmp.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), filepath.Join(p.dir, tmpDir))
	defer func() { _ = f.Close() }() // it has no name
	var last stamp
	for range 20 {
		_, err := f.WriteAt([]byte{1}, 0)
		s, statErr := stampOf(f)
		if errors.Join(err, statErr) != nil || s == last {
			return false
		}
		last = s
	}
	return true
}
