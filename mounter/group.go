package mounter

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/csikit/csikit/backends"
)

// A mount group (VOLUME_MOUNT_GROUP) is given to the file system as its gid
// option where it has one: then all that it holds belongs to the group. Any other
// has its root given to the group, with the setgid bit, so that what is made in
// it belongs to the group too; that is done once, and what the pod makes of it
// later stays.
//
// kubelet, where a driver leaves fsGroup to it, also walks through all that the volume
// holds. That is not done here: it takes hours on a big volume, and a mount group is
// what the mount shows, by the spec. Files that were made for another group stay that
// group's; whether new ones may be written by the group is their maker's umask. A
// volume that is mounted read-only keeps its owners, except by the gid option. On a
// server that does not let root change owners (root_squash) the stage fails, as it
// does with kubelet.

// gidTypes are the file systems whose files all belong to the group of their gid
// option.
var gidTypes = []string{"cifs", "smb3", "vfat", "msdos", "exfat", "ntfs", "ntfs3", "udf", "iso9660", "hfs", "hfsplus", "tmpfs"}

// noGroup is what the kernel takes for "leave it as it is".
const noGroup = 1<<32 - 1

func parseGroup(group string) (int, error) {
	gid, err := strconv.ParseUint(group, 10, 32)
	if err != nil || gid == noGroup || int(gid) < 0 {
		return 0, fmt.Errorf("%w: volume mount group %q is not the number of a group", backends.ErrInvalid, group)
	}
	return int(gid), nil
}

// byOption tells whether the group goes into the mount options.
func (s *staging) byOption() bool {
	return s.gid >= 0 && s.rec.Source == sourceMount && slices.Contains(gidTypes, s.rec.Mount.FSType)
}

// groupOption adds the group to the options of a mount: at the end, where it wins
// over another.
func (s *staging) groupOption(options []string) []string {
	if !s.byOption() {
		return options
	}
	return append(options, "gid="+strconv.Itoa(s.gid))
}

// setGroup gives the volume's root to the group. A server that does not answer
// costs no more than the timeout, and one goroutine for each volume.
func (s *staging) setGroup(ctx context.Context) error {
	if s.gid < 0 || s.readOnly || s.byOption() {
		return nil
	}
	if err := s.step(ctx, "give to group"); err != nil {
		return err
	}
	if s.far(s.rec) {
		return s.features.RemoteMounter.GroupRemote(ctx, backends.GroupRemoteRequest{ID: s.req.ID, Path: s.path, GID: s.gid, State: s.rec.State})
	}
	_, err := s.groups.get(ctx, s.req.ID+"\x00"+s.path, s.opts.StatsTimeout, func() (struct{}, error) {
		return struct{}{}, s.kernel.SetGroup(s.path, s.gid)
	})
	if err != nil {
		return unavailable("give %s to group %d: %w", s.path, s.gid, err)
	}
	return nil
}
