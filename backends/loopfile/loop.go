package loopfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// opened are the volumes that this process's node half opened, or was told are
// open: their loop devices are in use even when nobody holds them at the moment,
// as a block volume's is between two programs.
type opened struct {
	mu    sync.Mutex
	known bool // RecoverNode was here: what is attached and not in m is nobody's
	m     map[string]state
}

func (o *opened) put(dir string, s state) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil {
		o.m = map[string]state{}
	}
	o.m[dir] = s
}

func (o *opened) drop(dir string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.m, dir)
}

func (o *opened) get(dir string) (s state, open, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, open = o.m[dir]
	return s, open, o.known
}

func (o *opened) recovered() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known = true
}

// idle says ErrInUse when the image of a locked volume is attached. A loop
// device that an earlier process left, and that no record calls open, is
// detached; where that cannot be known, or cannot be done, it is in use.
func (b *Backend) idle(ctx context.Context, v *volume) error {
	s, open, known := b.opened.get(v.dir)
	if open {
		return fmt.Errorf("%w: open on this node as %s", backends.ErrInUse, s.Loop)
	}
	img, err := v.openImg()
	if err != nil {
		return err
	}
	defer func() { _ = img.Close() }() // nothing was written
	free, err := tryLock(img)
	if err != nil {
		return unavailable("flock "+v.path(imgFile), err)
	}
	loops, err := blockdev.LoopOf(device(v.img), inode(v.img))
	switch {
	case errors.Is(err, backends.ErrUnsupported), errors.Is(err, fs.ErrPermission):
		// No loop devices here, or not for this process, which then attached
		// none: the lock alone tells.
	case err != nil:
		return unavailable("loop devices of "+v.path(imgFile), err)
	}
	if free && len(loops) == 0 {
		return nil
	}
	if free || !known || len(loops) == 0 {
		return fmt.Errorf("%w: %s is attached%s", backends.ErrInUse, v.path(imgFile), names(loops))
	}
	return b.detachAll(ctx, v, loops)
}

func names(loops []blockdev.Loop) string {
	var s strings.Builder
	for _, l := range loops {
		s.WriteString(" " + l.Path)
	}
	return s.String()
}

func (b *Backend) detachAll(ctx context.Context, v *volume, loops []blockdev.Loop) error {
	for _, l := range loops {
		b.log.Warn("detach a loop device that nobody calls open", "loop", l.Path, "id", v.id)
		if err := b.detach(ctx, l.Path, device(v.img), inode(v.img)); err != nil {
			return err
		}
	}
	return nil
}

// detach detaches a loop device from the file with these numbers.
func (b *Backend) detach(ctx context.Context, path string, dev, ino uint64) error {
	is, err := blockdev.LoopIs(path, dev, ino)
	if err != nil {
		return err
	}
	stopped := is && discardStopped(path)
	restore := func() {}
	if is {
		restore = b.lift(path)
	}
	if err := blockdev.DetachLoop(ctx, path, dev, ino); err != nil {
		restore()
		return nameUsers(err, path)
	}
	b.step("loopfile.loop.detached")
	if stopped {
		b.reuse.later(path)
	}
	return nil
}

// nameUsers adds to the error of a loop device that is in use who uses it: what
// that is this mount namespace may not show.
func nameUsers(err error, path string) error {
	if !errors.Is(err, backends.ErrInUse) {
		return err
	}
	st, look := os.Stat(path)
	if look != nil {
		return err
	}
	users := mnt.FindUsers(special(st))
	if len(users) == 0 {
		return err
	}
	return fmt.Errorf("%w (used by %s)", err, strings.Join(users, ", "))
}

// attach gives the loop device of a locked volume: the one that it has, or a new
// one. The lock on img goes to the loop device with the open file and says, for
// as long as it is attached, that it is.
func (b *Backend) attach(ctx context.Context, v *volume, img *os.File, hint *state) (*state, error) {
	deadline := time.NewTimer(lockWait)
	defer deadline.Stop()
	for {
		free, err := tryLock(img)
		if err != nil {
			return nil, unavailable("flock "+v.path(imgFile), err)
		}
		if free {
			return b.attachNew(ctx, v, img)
		}
		s, err := b.attached(ctx, v, hint)
		if s != nil || err != nil {
			return s, err
		}
		if snap := b.jobs.of(v.id); snap != "" {
			return nil, fmt.Errorf("%w: snapshot %s of it is still being copied", backends.ErrPending, snap)
		}
		// Attached to nothing, and locked: the kernel lets go of a file a moment
		// after it detached it.
		poll := time.NewTimer(lockPoll)
		select {
		case <-poll.C:
		case <-deadline.C:
			return nil, fmt.Errorf("%w: %s is locked, and no loop device shows it: the controller may be copying it", backends.ErrUnavailable, v.path(imgFile))
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// attachTries bounds how often a thin volume asks for another loop device.
const attachTries = 4

func (b *Backend) attachNew(ctx context.Context, v *volume, img *os.File) (*state, error) {
	for try := 1; ; try++ {
		l, err := blockdev.AttachLoop(ctx, img, blockdev.AttachOptions{
			Name: v.id, DirectIO: !b.o.Buffered, BlockSize: v.meta.BlockSize,
		})
		if err != nil {
			return nil, err
		}
		b.step("loopfile.loop.attached")
		s := &state{Version: stateVersion, Loop: l.Path, DiskSeq: l.DiskSeq, Dev: device(v.img), Ino: inode(v.img)}
		if v.meta.thick() || !discardStopped(l.Path) {
			return s, nil
		}
		if try == attachTries {
			b.log.Warn("no discard for a thin volume", "id", v.id, "loop", l.Path)
			return s, nil
		}
		if err := blockdev.DetachLoop(ctx, l.Path, s.Dev, s.Ino); err != nil {
			return nil, err
		}
		if err := renewLoop(l.Path); err != nil {
			b.log.Debug("loop device is not made anew", "loop", l.Path, "err", err)
		}
	}
}

// attached finds the loop device of a volume: where it was last, else by asking
// all of them. nil: there is none.
func (b *Backend) attached(ctx context.Context, v *volume, hint *state) (*state, error) {
	dev, ino := device(v.img), inode(v.img)
	if last, open, _ := b.opened.get(v.dir); open {
		hint = &last
	}
	if hint != nil {
		if is, err := blockdev.LoopIs(hint.Loop, dev, ino); err == nil && is {
			seq, err := diskSeq(ctx, hint.Loop)
			return &state{Version: stateVersion, Loop: hint.Loop, DiskSeq: seq, Dev: dev, Ino: ino}, err
		}
	}
	loops, err := blockdev.LoopOf(dev, ino)
	if err != nil {
		return nil, unavailable("loop devices of "+v.path(imgFile), err)
	}
	if len(loops) > 1 {
		return nil, fmt.Errorf("%w: %s is attached more than once:%s", backends.ErrPrecondition, v.path(imgFile), names(loops))
	}
	for _, l := range loops {
		return &state{Version: stateVersion, Loop: l.Path, DiskSeq: l.DiskSeq, Dev: dev, Ino: ino}, nil
	}
	return nil, nil
}

func diskSeq(ctx context.Context, path string) (uint64, error) {
	d, err := blockdev.Open(ctx, path, false)
	if err != nil {
		return 0, err
	}
	seq, err := d.DiskSeq()
	return seq, errors.Join(err, d.Close())
}
