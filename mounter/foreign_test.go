package mounter

import (
	"testing"

	"github.com/csikit/csikit/mounter/mnt"
)

func TestStageable(t *testing.T) {
	for _, c := range []struct {
		fsType, root, source string
		want                 bool
	}{
		{"ext4", "/", "/dev/sda", true},
		{"btrfs", "/", "/dev/sda", true},
		{"nfs4", "/", "server:/export", true},
		{"nfs", "/", "[fe80::1]:/", true},
		{"cifs", "/", "//server/share", true},
		{"ceph", "/", "1.2.3.4,1.2.3.5:6789:/", true},
		{"fuse.sshfs", "/", "me@server:", true},
		{"fuse", "/", "s3fs", true},
		{"zfs", "/", "pool/volume", true},
		{"tmpfs", "/dir", "tmpfs", true},
		{"devtmpfs", "/sda", "udev", true},
		{"overlay", "/srv/volumes/v", "overlay", true},
		{"tmpfs", "/", "tmpfs", false},
		{"proc", "/", "proc", false},
		{"sysfs", "/", "sysfs", false},
		{"cgroup2", "/", "cgroup2", false},
		{"overlay", "/", "overlay", false},
		{"devtmpfs", "/", "udev", false},
		{"fusectl", "/", "fusectl", false},
		{"vfat", "/", "/dev/sda1", false},
		{"iso9660", "/", "/dev/sr0", false},
	} {
		if got := stageable(mnt.Info{FSType: c.fsType, Root: c.root, Source: c.source}); got != c.want {
			t.Errorf("%s of %s, root %s: %v", c.fsType, c.source, c.root, got)
		}
	}
}
