package mounter

import (
	"context"
	"errors"
	"slices"
	"syscall"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
)

// A clone, a restored snapshot and its original have one UUID. ext4 does not mind.
// xfs refuses the second mount, and btrfs takes the second device for another path
// to the first, or since Linux 6.7 gives it an identity of its own for the time of
// the mount. Both guard against one disk under two names (multipath), which two
// mounts would destroy: so the copy is mounted beside the other one only if it is
// known to be another disk. ext4 has no such guard, so that one is refused which is
// known to be the same disk. What is on the disk stays as it is, and the next stage
// decides anew by what is mounted then.

// mountFS mounts the file system of the device at the staging path.
func (s *staging) mountFS(ctx context.Context, d Device, fsType string) error {
	m := MountRequest{
		Device: d, FSType: fsType, Target: s.path, Options: slices.Concat(s.req.Capability.Flags.Reveal(), s.extra), ReadOnly: s.readOnly,
		IDMap: s.src.IDMap,
	}
	if s.uuid == "" {
		return s.kernel.Mount(ctx, m)
	}
	// Two copies do not come at once.
	unlock, err := s.locks.lock(ctx, "file system "+s.uuid)
	if err != nil {
		return err
	}
	defer unlock()
	switch fsType {
	case "xfs":
		// The kernel knows best, and asking it costs nothing.
		err := s.kernel.Mount(ctx, m)
		if !errors.Is(err, syscall.EINVAL) {
			return err
		}
		var other error
		if m.Copy, other = s.isCopy(ctx, d, fsType); !m.Copy || other != nil {
			return errors.Join(other, err)
		}
	case "btrfs":
		if m.Copy, err = s.isCopy(ctx, d, fsType); err != nil {
			return err
		}
	default:
		if err := s.onlyHere(ctx, d, fsType); err != nil {
			return err
		}
	}
	return s.kernel.Mount(ctx, m)
}

// onlyHere refuses the disk of an ext file system that is mounted under another
// name: nothing in the kernel keeps two mounts, or a mount and a check, apart.
func (s *staging) onlyHere(ctx context.Context, d Device, fsType string) error {
	if !isExt(fsType) || s.uuid == "" {
		return nil
	}
	copies, err := s.copies(ctx, d, fsType)
	if err != nil {
		return err
	}
	for _, c := range copies {
		if c.Relation == blockdev.Same {
			return s.mountedFrom(c, fsType)
		}
	}
	return nil
}

// isCopy reports whether copies of the file system are mounted, and refuses the disk
// of one of them.
func (s *staging) isCopy(ctx context.Context, d Device, fsType string) (bool, error) {
	copies, err := s.copies(ctx, d, fsType)
	if err != nil {
		return false, err
	}
	for _, c := range copies {
		if c.Relation == blockdev.Same || c.Relation == blockdev.Unrelated && !verified(s.src.Device.Identity) {
			return false, s.mountedFrom(c, fsType)
		}
	}
	return len(copies) > 0, nil
}

func (s *staging) copies(ctx context.Context, d Device, fsType string) ([]Copy, error) {
	copies, err := s.kernel.Copies(ctx, d, fsType, s.uuid)
	if err != nil {
		return nil, unavailable("which file systems with UUID %s are mounted: %w", s.uuid, err)
	}
	return copies, nil
}

func (s *staging) mountedFrom(c Copy, fsType string) error {
	return inUse("the %s with UUID %s is mounted from device %s already, which is %s", fsType, s.uuid, c.Device, c.Relation)
}

// verified reports whether the backend knows its disk by more than a path. Then the
// mounted one, which is not this volume's, is another.
func verified(id backends.Identity) bool {
	return id.Serial != "" || id.WWID != "" || id.DMUUID != "" || id.BackingIno != 0 || id.Check != nil
}
