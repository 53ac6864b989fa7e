package mounter

import (
	"slices"
	"strings"

	"github.com/csikit/csikit/mounter/mnt"
)

// canBeOurs refuses to unmount, without a record of it, what this engine cannot
// have mounted for the volume. That nobody else has the path on record is the
// caller's to know.
func (e *Engine) canBeOurs(s *store, id string, mounts []mnt.Info) error {
	known := s.of(id)
	for _, m := range mounts {
		if slices.ContainsFunc(known, func(r *record) bool { return r.BootID == e.boot && r.Mounted.is(m) }) || stageable(m) {
			continue
		}
		return refuse("mounted there is %s, which no record of the volume explains: it is left alone; unmount it by hand when it is surely not needed", describeMount(m))
	}
	return nil
}

// stageable reports whether a stage or a publish can have made m: a file system
// on a disk, a remote one, or a bind of a part of one. What is left is a pseudo
// file system as a whole (tmpfs, proc, cgroup, a container's overlay), or one on
// a disk that the engine does not mount.
func stageable(m mnt.Info) bool {
	return m.Root != "/" || slices.Contains(mountable, m.FSType) || m.FSType == "zfs" || remote(m)
}

// remoteTypes have sources that do not look remote.
var remoteTypes = []string{"9p", "virtiofs", "ceph", "lustre", "glusterfs", "beegfs", "gpfs", "wekafs", "afs"}

// remote reports whether m has a server: by its type, or by a source such as
// server:/export or //server/share.
func remote(m mnt.Info) bool {
	t, _, _ := strings.Cut(m.FSType, ".")
	return t == "fuse" || slices.Contains(remoteTypes, m.FSType) || strings.Contains(m.Source, ":/") || strings.HasPrefix(m.Source, "//")
}
