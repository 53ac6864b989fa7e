package mounter

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/csikit/csikit/internal/faultpoint"
	"github.com/csikit/csikit/mounter/mnt"
)

// Unstage unmounts the staging path and, when it was the volume's last one,
// closes the volume. A volume or a path that is not known, with nothing mounted,
// is no error. While a target of the staging path is mounted it is
// backends.ErrInUse; another volume at the path is backends.ErrPrecondition, and so
// is a mount that the record does not know. Where the record was lost, what a
// stage can have mounted is taken for the volume: a disk's file system, a remote
// one, or a part of one. A tmpfs, proc and the like are backends.ErrPrecondition.
func (e *Engine) Unstage(ctx context.Context, req UnstageRequest) error {
	path, err := cleanPath("staging path", req.Path)
	if err != nil {
		return err
	}
	s, done, err := e.begin(ctx, req.ID, path)
	if err != nil {
		return unfinished(err)
	}
	defer done()
	if err := e.unstage(ctx, s, req.ID, path); err != nil {
		return fmt.Errorf("unstage volume %q from %s: %w", req.ID, path, err)
	}
	return nil
}

func (e *Engine) unstage(ctx context.Context, s *store, id, path string) error {
	mounts, err := e.mountsAt(path)
	if err != nil {
		return err
	}
	r, names := s.get(kindStage, id, path), []string{path}
	if r != nil {
		names = s.names(r)
	}
	if err := e.unpublished(s, id, names); err != nil {
		return err
	}
	if err := e.mayUnmount(s, id, path, r, mounts); err != nil {
		return err
	}
	if err := e.hidden(r, mounts); err != nil {
		return err
	}
	if err := e.unmountAll(ctx, path, mounts); err != nil {
		return err
	}
	if err := e.dropTargets(s, id, names); err != nil {
		return err
	}
	if r == nil {
		return e.closeUnknown(ctx, s, id)
	}
	if err := e.lastReadOnly(ctx, s, r); err != nil {
		return err
	}
	return soften(e.closeVolume(ctx, s, r))
}

// unpublished refuses while a target of this staging path, under any of its names,
// stands.
func (e *Engine) unpublished(s *store, id string, staging []string) error {
	for _, p := range s.of(id) {
		if p.Kind != kindPublish || !slices.Contains(staging, p.StagingPath) {
			continue
		}
		live, err := e.targetLives(s, p)
		if err != nil {
			return err
		}
		if live {
			return inUse("it is published at %s", p.Path)
		}
	}
	return nil
}

// targetLives reports whether the target of a publish record is mounted, be it
// below something else.
func (e *Engine) targetLives(s *store, p *record) (bool, error) {
	if p.BootID != e.boot {
		return false, nil
	}
	mounts, err := e.mountsAt(p.Path)
	if err != nil {
		return false, err
	}
	if p.Mounted == nil {
		return len(mounts) > 0, nil // cut short between the bind and the record
	}
	return slices.ContainsFunc(mounts, func(m mnt.Info) bool { return s.shows(p, m) }), nil
}

// mayUnmount refuses to unmount what is not the volume, and what others still
// need. Without a record that knows the volume a mount that this engine can have
// made is taken for it: the CO says that it is, and nobody else claims the path.
func (e *Engine) mayUnmount(s *store, id, path string, r *record, mounts []mnt.Info) error {
	if len(mounts) == 0 {
		return nil
	}
	if r == nil || !r.knows() {
		if o := s.others(id, path); len(o) > 0 {
			return refuse("volume %q is there", o[0].Volume)
		}
		if err := e.aliased(s, id, path, mounts); err != nil {
			return err
		}
		if strings.HasPrefix(e.opts.StateDir+"/", path+"/") {
			return refuse("the driver's own state lies below it")
		}
		if err := e.canBeOurs(s, id, mounts); err != nil {
			return err
		}
		if m := mounts[0]; m.Root != "/" || !slices.Contains(mountable, m.FSType) {
			return nil // part of a file system that others use, too
		}
		return e.heldElsewhere(s, id, path, mounts[0])
	}
	for _, m := range mounts {
		is, err := e.ours(s, m, path, r)
		if err != nil {
			return err
		}
		if !is && r.Mounted == nil && r.Source == sourceMount && r.BootID == e.boot {
			is = len(mounts) == 1 // a helper's own way to write the source, and no time to record it
		}
		if !is {
			return refuse("something else is mounted there: %s; it is left alone", describeMount(m))
		}
	}
	if r.Source != sourceDevice || !e.last(s, r) {
		return nil
	}
	return e.heldElsewhere(s, id, path, mounts[0])
}

// heldElsewhere finds targets whose records were lost. A mount that another
// volume has on record is none: each of the two has to go first once, and
// closeVolume does not take the device from the other.
func (e *Engine) heldElsewhere(s *store, id, path string, m mnt.Info) error {
	all, err := e.kernel.MountsOf(m.Dev)
	if err != nil {
		return unavailable("mounts of %s: %w", describeMount(m), err)
	}
	mine, err := e.mountsAt(path)
	if err != nil {
		return err
	}
	for _, o := range all {
		if !slices.ContainsFunc(mine, func(m mnt.Info) bool { return m.ID == o.ID }) && len(s.others(id, o.Point)) == 0 {
			return inUse("its file system is also mounted at %s", o.Point)
		}
	}
	return nil
}

// hidden finds the mount of a record below another one, on a directory above its
// path: there it cannot be unmounted, and it is not gone either.
func (e *Engine) hidden(r *record, seen []mnt.Info) error {
	if len(seen) > 0 || r == nil || r.Mounted == nil || r.BootID != e.boot {
		return nil
	}
	mounts, err := e.kernel.MountsOf(r.Mounted.Dev)
	if err != nil {
		return unavailable("mounts of device %s: %w", devName(r.Mounted.Dev), err)
	}
	for _, m := range mounts {
		if m.Point == r.Path && r.Mounted.wasRenamed(m) {
			return unavailable("it is mounted there, below another mount that hides it: %s", describeMount(m))
		}
	}
	return nil
}

// unmountAll unmounts everything at path and looks. Whatever keeps it busy may
// go away, so the CO is told to come back.
func (e *Engine) unmountAll(ctx context.Context, path string, mounts []mnt.Info) error {
	if len(mounts) == 0 {
		return nil
	}
	if err := e.step(ctx, "unmount"); err != nil {
		return err
	}
	err := e.takeOff(ctx, path, mounts[0])
	if err != nil && e.abortSilent(ctx, path, mounts[0], err) {
		err = e.takeOff(ctx, path, mounts[0])
	}
	if err != nil {
		return soften(err) // which says how many it took off
	}
	faultpoint.Reach("mounter.path.unmounted")
	left, err := e.mountsAt(path)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return unavailable("still mounted after unmounting it: %s", describeMount(left[0]))
	}
	return nil
}

// dropTargets forgets targets of the staging path that the kernel does not have.
func (e *Engine) dropTargets(s *store, id string, staging []string) error {
	for _, p := range s.of(id) {
		if p.Kind == kindPublish && slices.Contains(staging, p.StagingPath) {
			if err := s.remove(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// closeUnknown closes a volume of which there is no record: it may have been
// lost while the volume was open.
func (e *Engine) closeUnknown(ctx context.Context, s *store, id string) error {
	for _, o := range s.of(id) {
		if o.Kind == kindStage {
			return nil
		}
	}
	if err := e.closeLeftMappings(ctx, id); err != nil {
		return err
	}
	if err := e.stopLeftServer(ctx, id); err != nil {
		return err
	}
	return soften(e.callClose(ctx, id, nil))
}
