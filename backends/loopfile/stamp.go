package loopfile

import (
	"context"
	"errors"
	"os"
	"time"
)

// stamp says whether a file was written to: the kernel sets ctime with each
// write, a loop device's too.
type stamp struct {
	inode   uint64
	changed time.Time
	size    int64
}

func stampOf(f *os.File) (stamp, error) {
	fi, err := f.Stat()
	if err != nil {
		return stamp{}, err
	}
	return stamp{inode(fi), changeTime(fi), fi.Size()}, nil
}

// errWritten is a copy of which nobody knows what moment it shows.
var errWritten = errors.New("was written to while it was copied")

// same is errWritten when the file is not what it was.
func (s stamp) same(f *os.File) error {
	now, err := stampOf(f)
	switch {
	case err != nil:
		return err
	case now.inode != s.inode || !now.changed.Equal(s.changed) || now.size != s.size:
		return errWritten
	}
	return nil
}

// clockTick is more than the step in which file systems count time.
const clockTick = 20 * time.Millisecond

// settled is the stamp of a file, of a moment so long ago that a write from now
// on gives it another one.
func settled(ctx context.Context, f *os.File) (stamp, error) {
	for end := time.Now().Add(time.Second); ; {
		s, err := stampOf(f)
		if err != nil || time.Since(s.changed) > clockTick {
			return s, err
		}
		if time.Now().After(end) {
			return s, errWritten
		}
		t := time.NewTimer(clockTick)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return s, context.Cause(ctx)
		}
	}
}
