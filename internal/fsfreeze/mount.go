package fsfreeze

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// Inside is the device with the data of a volume: the one on top of its LUKS layer, if
// it has one.
func Inside(dev string) string {
	dirs, err := filepath.Glob("/sys/block/" + filepath.Base(dev) + "/holders/dm-*")
	if err != nil || len(dirs) != 1 {
		return dev
	}
	uuid, err := os.ReadFile(filepath.Join(dirs[0], "dm/uuid"))
	if err != nil || !strings.HasPrefix(string(uuid), "CRYPT-LUKS") {
		return dev
	}
	return "/dev/" + filepath.Base(dirs[0])
}

// MountOf opens the root of a writable mount of what is on a device; nil: there is
// none in this process's mount namespace. What is opened is on that device: another
// file system may be mounted over it.
func MountOf(ctx context.Context, dev string) (*os.File, error) {
	dev = Inside(dev)
	d, err := blockdev.Open(ctx, dev, false)
	if err != nil {
		return nil, err
	}
	num := d.Num()
	if err := d.Close(); err != nil {
		return nil, err
	}
	all, err := mnt.List()
	if errors.Is(err, backends.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.ReadOnly() || m.Dev != num && m.FSType != "btrfs" {
			continue
		}
		dir, err := os.Open(m.Point)
		if err != nil {
			continue // unmounted meanwhile, or not for this process
		}
		if isOn(dir, m.FSType, dev, num) {
			return dir, nil
		}
		_ = dir.Close() // read only
	}
	return nil, nil
}

func isOn(dir *os.File, fsType, dev string, num uint64) bool {
	if fsType == "btrfs" { // it shows a device number that no device has
		return isBtrfsOn(dir, dev)
	}
	var st unix.Stat_t
	return unix.Fstat(int(dir.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && uint64(st.Dev) == num //nolint:unconvert,gosec // of other types elsewhere
}
