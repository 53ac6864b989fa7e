package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/fsfreeze"
)

// lockDir is lvm's own directory of locks. It is as old as the boot, as a freeze is at
// most, and in a container it is the host's: the container's own files are gone with it.
const lockDir = "/run/lock/lvm"

// frozenMark begins the name of a file there that says which LV was frozen by us; the
// driver's name follows, for other drivers have theirs there. It has content from before
// the freeze until the thaw: who gets the lock of one with content thaws first. The lock
// (flock) is that of who froze it, another process of the driver perhaps, and of the
// child that stands ready to thaw it. So nobody thaws what another one has frozen: not
// the next process, at its start, what the one before has still to cut, and not the
// child of one that was killed, when it comes to it late, what the next has frozen
// meanwhile. Members of a group would be of several moments, and nobody would know.
const frozenMark = "csikit-frozen-"

// markPoll is how often it is looked whether a mark is free.
const markPoll = 10 * time.Millisecond

// mark is one that is locked.
type mark struct {
	file *os.File
	left bool // of somebody who may have frozen, and has not thawed
}

// write says that it is about to be frozen.
func (m *mark) write() error {
	_, err := m.file.WriteAt([]byte("x"), 0)
	return err
}

// remove removes it first, and lets go of it then: who waits for it sees that it is gone.
func (m *mark) remove() error {
	return errors.Join(os.Remove(m.file.Name()), m.file.Close())
}

// markOf is the mark of an LV, or of all of them with "*".
func (b *Backend) markOf(uuid string) string {
	return filepath.Join(b.marks, frozenMark+b.o.Driver+":"+uuid)
}

// waiting bounds how long it is waited for who has frozen: they may do that for
// Options.FreezeLimit.
func (b *Backend) waiting(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, b.o.FreezeLimit, fmt.Errorf(
		"%w: another process of the driver has frozen it, or the child of one that died has still to thaw it", backends.ErrPending))
}

// markFrozen has the mark of an LV that is about to be frozen, and that nobody of ours
// has frozen.
func (b *Backend) markFrozen(ctx context.Context, uuid string, dir *os.File) (*mark, error) {
	if err := os.MkdirAll(b.marks, 0o700); err != nil {
		return nil, err
	}
	m, err := lockMark(ctx, b.markOf(uuid), os.O_CREATE)
	if err != nil || !m.left {
		return m, err
	}
	if err := b.thaw(dir); err != nil {
		return nil, errors.Join(err, m.file.Close())
	}
	return m, nil
}

// lockMark waits until nobody else has a mark.
func lockMark(ctx context.Context, path string, create int) (*mark, error) {
	for {
		m, err := tryMark(path, create)
		if m != nil || err != nil {
			return m, err
		}
		select {
		case <-time.After(markPoll):
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
		}
	}
}

// tryMark takes a mark; nil: somebody else has it, or has just removed it.
func tryMark(path string, create int) (*mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR|create, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		is, err1 := f.Stat()
		at, err2 := os.Lstat(path)
		if err1 == nil && err2 == nil && os.SameFile(is, at) {
			return &mark{f, is.Size() > 0}, nil
		}
		if !errors.Is(err2, fs.ErrNotExist) {
			err = errors.Join(err1, err2)
		}
	}
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		err = nil
	}
	return nil, errors.Join(os.NewSyscallError("flock "+path, err), f.Close())
}

// thawLeft thaws what an earlier process froze and did not live to thaw, and whose
// child was killed with it. What one that lives has frozen, or a child is about to thaw,
// is looked at when it is free.
func (b *Backend) thawLeft(ctx context.Context) {
	marks, err := filepath.Glob(b.markOf("*"))
	if err != nil {
		b.log.Error("frozen volumes are not looked for", "dir", b.marks, "err", err)
	}
	for _, path := range marks {
		m, err := tryMark(path, 0)
		if m == nil && err == nil {
			b.watches.Go(func() {
				m, err := lockMark(b.ctx, path, 0)
				b.thawMarked(b.ctx, path, m, err)
			})
			continue
		}
		b.thawMarked(ctx, path, m, err)
	}
}

// thawMarked has a mark, or the reason why not.
func (b *Backend) thawMarked(ctx context.Context, path string, m *mark, err error) {
	if err == nil && m.left {
		err = b.thawLV(ctx, strings.TrimPrefix(path, b.markOf("")))
	}
	switch {
	case m == nil:
	case err == nil:
		err = m.remove()
	default:
		err = errors.Join(err, m.file.Close()) // the next start tries again, or the next group
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && b.ctx.Err() == nil {
		b.log.Error("volume may be frozen", "mark", path, "err", err)
	}
}

func (b *Backend) thawLV(ctx context.Context, uuid string) error {
	path, err := b.kernel.device(uuid)
	if path == "" || err != nil {
		return err
	}
	dir, err := b.kernel.mountOf(ctx, path)
	if err != nil {
		return err
	}
	if dir == nil {
		return fmt.Errorf("%s is not mounted where this process sees it, and not thawed", path)
	}
	return errors.Join(b.thaw(dir), dir.Close())
}

func (b *Backend) thaw(dir *os.File) error {
	b.log.Warn("thaw what an earlier process froze", "path", dir.Name())
	return fsfreeze.Thaw(dir)
}
