package mounter

import (
	"context"
	"errors"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// UnmountPolicy says how far Unpublish and Unstage go with a mount that does not
// come off.
type UnmountPolicy uint8

const (
	// UnmountForce unmounts. Where that hangs, and the mount has a server (it is a
	// remote or a FUSE file system), the requests that wait for the server are made
	// to fail (MNT_FORCE): what they were to write is lost, as it is in the server.
	UnmountForce UnmountPolicy = iota
	// UnmountOnly does no more than unmounting.
	UnmountOnly
	// UnmountLazyRemote does what UnmountForce does, and at last detaches a mount
	// that has a server (MNT_DETACH), be it busy or hanging: the path is free, and
	// whoever still uses the file system has it until he ends.
	UnmountLazyRemote
	// UnmountLazy detaches every mount at last. The file system of a disk may then
	// go on writing to it unseen. The engine does not close such a volume before the
	// disk is free, but whoever takes the disk away all the same loses data.
	UnmountLazy
)

// Forcer is a [Kernel] that can do more about a mount than to unmount it.
type Forcer interface {
	// Force unmounts what is topmost at path, and makes requests fail that wait for
	// the file system's server.
	Force(path string) (was bool, err error)
	// Detach takes what is topmost off path, busy or not.
	Detach(path string) (was bool, err error)
}

const (
	defaultUnmountTimeout = 20 * time.Second
	// answerMargin is kept before the caller's deadline, to tell him what hangs.
	answerMargin = 500 * time.Millisecond
	// maxStack bounds the mounts that are taken off one path.
	maxStack = 1024
)

// errHangs is an unmount that did not come back in its time.
var errHangs = errors.New("hangs")

// takeOff unmounts everything at path, whose topmost mount is top, as far as the
// policy goes. Each step has its time; one that does not come back is left to
// itself, and who asks again waits for that one. No step is begun twice.
func (e *Engine) takeOff(ctx context.Context, path string, top mnt.Info) error {
	if e.farMount(top) {
		return e.takeOffFar(ctx, path, top)
	}
	err := e.attempt(ctx, "unmount", path, top, func() (int, error) { return e.kernel.Unwind(path) })
	k, ok := e.kernel.(Forcer)
	if err == nil || !ok || e.opts.Unmount == UnmountOnly {
		return err
	}
	if remote(top) && errors.Is(err, errHangs) {
		err = e.climb(ctx, "force unmount", path, top, k.Force, remote, err)
	}
	lazy := func(m mnt.Info) bool {
		return e.opts.Unmount == UnmountLazy || e.opts.Unmount == UnmountLazyRemote && remote(m)
	}
	if lazy(top) && (errors.Is(err, errHangs) || errors.Is(err, backends.ErrInUse)) {
		err = e.climb(ctx, "detach", path, top, k.Detach, lazy, err)
	}
	return err
}

// climb takes a harder step, after which the path is free or before is still the
// answer. It ends at a mount below that the step is not for: the volume of a disk may
// lie under what somebody mounted on it.
func (e *Engine) climb(
	ctx context.Context, what, path string, top mnt.Info, f func(string) (bool, error), isFor func(mnt.Info) bool, before error,
) error {
	if err := e.step(ctx, what); err != nil {
		return errors.Join(before, err)
	}
	e.log.WarnContext(ctx, "mount does not come off", "path", path, "mount", describeMount(top), "err", before, "next", what)
	err := e.attempt(ctx, what, path, top, func() (n int, err error) {
		for ; err == nil && n < maxStack; n++ {
			mounts, look := e.mountsAt(path)
			if look != nil || len(mounts) == 0 || !isFor(mounts[0]) {
				return n, look
			}
			_, err = f(path)
		}
		return n, err
	})
	if left, look := e.mountsAt(path); look == nil && len(left) == 0 {
		return nil
	}
	if err == nil {
		return before
	}
	return errors.Join(before, err)
}

// attempt runs one step, or waits for the one that runs. What has taken longer than
// Options.UnmountTimeout is errHangs; when the caller's deadline comes first, that
// is ErrUnavailable alone.
func (e *Engine) attempt(ctx context.Context, what, path string, top mnt.Info, f func() (int, error)) error {
	key := what + " " + path
	wait := e.opts.UnmountTimeout - e.unmounts.age(key)
	cut := false
	if end, ok := ctx.Deadline(); ok && time.Until(end)-answerMargin < wait {
		wait, cut = time.Until(end)-answerMargin, true
	}
	_, err := e.unmounts.get(ctx, key, max(wait, time.Millisecond), f)
	switch {
	case !errors.Is(err, errNoAnswer):
		return err
	case cut:
		return unavailable("%s of %s (%s): %w", what, path, describeMount(top), err)
	}
	return unavailable("%s of %s (%s) %w: %w; it is waited for, and not begun again", what, path, describeMount(top), errHangs, err)
}

// notHanging refuses to bring anything to a path from which an unmount may still
// take it: one that was begun does not end with its caller.
func (e *Engine) notHanging(paths ...string) error {
	for _, p := range paths {
		for _, what := range []string{"unmount", "force unmount", "detach"} {
			if age := e.unmounts.age(what + " " + p); age > 0 {
				return unavailable("an earlier %s of %s has not come back for %s", what, p, age.Round(time.Millisecond))
			}
		}
	}
	return nil
}
