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
// known to be another disk. What is on the disk stays as it is, and the next stage
// decides anew by what is mounted then.

// mountFS mounts the file system of the device at the staging path.
func (s *staging) mountFS(ctx context.Context, d Device, fsType string) error {
	m := MountRequest{
		Device: d, FSType: fsType, Target: s.path, Options: slices.Concat(s.req.Capability.Flags.Reveal(), s.extra), ReadOnly: s.readOnly,
		IDMap: s.src.IDMap,
	}
	if s.uuid == "" || fsType != "xfs" && fsType != "btrfs" {
		return s.kernel.Mount(ctx, m)
	}
	// Two copies do not come at once.
	unlock, err := s.locks.lock(ctx, "file system "+s.uuid)
	if err != nil {
		return err
	}
	defer unlock()
	if fsType == "xfs" {
		// The kernel knows best, and asking it costs nothing.
		err := s.kernel.Mount(ctx, m)
		if !errors.Is(err, syscall.EINVAL) {
			return err
		}
		var other error
		if m.Copy, other = s.isCopy(ctx, d, fsType); !m.Copy || other != nil {
			return errors.Join(other, err)
		}
	} else if m.Copy, err = s.isCopy(ctx, d, fsType); err != nil {
		return err
	}
	return s.kernel.Mount(ctx, m)
}

// isCopy reports whether copies of the file system are mounted, and refuses the disk
// of one of them.
func (s *staging) isCopy(ctx context.Context, d Device, fsType string) (bool, error) {
	copies, err := s.kernel.Copies(ctx, d, fsType, s.uuid)
	if err != nil {
		return false, unavailable("which file systems with UUID %s are mounted: %w", s.uuid, err)
	}
	for _, c := range copies {
		if c.Relation == blockdev.Same || c.Relation == blockdev.Unrelated && !verified(s.src.Device.Identity) {
			return false, inUse("the %s with UUID %s is mounted from device %s already, which is %s", fsType, s.uuid, c.Device, c.Relation)
		}
	}
	return len(copies) > 0, nil
}

// verified reports whether the backend knows its disk by more than a path. Then the
// mounted one, which is not this volume's, is another.
func verified(id backends.Identity) bool {
	return id.Serial != "" || id.WWID != "" || id.DMUUID != "" || id.BackingIno != 0 || id.Check != nil
}
