package mounter

import (
	"context"
	"errors"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// A mount whose server is dead may hold who asks it in the kernel for ever, and the
// thread cannot be ended without the process. So a backend with a RemoteMounter does
// that elsewhere. Binds of such a mount, its attributes, and looks that ask nobody
// are made here: they need no server.

// far reports whether the backend mounts the volume of r.
func (e *Engine) far(r *record) bool {
	return e.features.RemoteMounter != nil && r.Source == sourceMount && r.Mount.Remote
}

// farMount reports whether the backend unmounts m, of which there may be no record.
func (e *Engine) farMount(m mnt.Info) bool {
	t, _, _ := strings.Cut(m.FSType, ".")
	return e.features.RemoteMounter != nil && remote(m) && t != "fuse"
}

// takeOffFar is takeOff of such a mount. It is not forced: the path gets free, and
// what the file system still has to write, it writes when its server is back.
func (e *Engine) takeOffFar(ctx context.Context, path string, top mnt.Info) error {
	// What was begun is waited for by who comes next, so that it outlives its caller.
	own := context.WithoutCancel(ctx)
	off := func(detach bool) func() (int, error) {
		return func() (int, error) {
			return 0, e.features.RemoteMounter.UnmountRemote(own, backends.UnmountRemoteRequest{Path: path, Detach: detach})
		}
	}
	err := e.attempt(ctx, "unmount", path, top, off(false))
	lazy := e.opts.Unmount == UnmountLazy || e.opts.Unmount == UnmountLazyRemote
	if !lazy || !errors.Is(err, errHangs) && !errors.Is(err, backends.ErrInUse) {
		return err
	}
	if again := e.step(ctx, "detach"); again != nil {
		return errors.Join(err, again)
	}
	e.log.WarnContext(ctx, "mount does not come off", "path", path, "mount", describeMount(top), "err", err, "next", "detach")
	return e.attempt(ctx, "detach", path, top, off(true))
}
