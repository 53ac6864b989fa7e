package mounter

import (
	"os"
	"path/filepath"
)

// Live asks sysfs, which has the file systems of all namespaces; not those of the
// kernel's own driver for ext2.
func (linux) Live(dev uint64, fsType string) bool {
	dir, err := os.Readlink("/sys/dev/block/" + devName(dev))
	if err != nil {
		return false
	}
	name := filepath.Base(dir)
	var pattern string
	switch {
	case fsType == "xfs":
		pattern = filepath.Join("/sys/fs/xfs", name, "log")
	case fsType == "btrfs":
		pattern = filepath.Join(sysBtrfs, "*/devices", name)
	case isExt(fsType):
		pattern = filepath.Join("/sys/fs/ext4", name, "err_ratelimit_burst") // which no feature has
	default:
		return false
	}
	found, err := filepath.Glob(pattern)
	return err == nil && len(found) > 0
}
