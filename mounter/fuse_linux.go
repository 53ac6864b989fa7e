package mounter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/mounter/mnt"
)

// fuseConnections has a directory for each connection, where the file system of it
// is mounted; in few containers it is.
const fuseConnections = "/sys/fs/fuse/connections"

// MountFUSE mounts with a new descriptor. The kernel asks the server to introduce
// itself at once, and waits for nothing.
func (linux) MountFUSE(_ context.Context, m FUSEMountRequest) (*os.File, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	dev := os.NewFile(uintptr(fd), "/dev/fuse")
	o, err := mnt.ParseOptions(m.Options)
	if err == nil {
		words := []string{"fd=" + strconv.Itoa(fd), "rootmode=40000", "user_id=0", "group_id=0"}
		if o.Data != "" {
			words = append(words, o.Data)
		}
		o.Data, o.ReadOnly, o.Owners = strings.Join(words, ","), o.ReadOnly || m.ReadOnly, mnt.OwnersOf(m.IDMap)
		err = mnt.Mount(m.Source, m.FSType, m.Target, o)
	}
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return dev, nil
}

// AbortFUSE uses the connection's own switch, or an unmount with force, which
// throws it before it looks whether the mount is busy.
func (linux) AbortFUSE(path string, dev uint64) error {
	err := os.WriteFile(fuseConnections+"/"+strconv.FormatUint(uint64(unix.Minor(dev)), 10)+"/abort", []byte("1"), 0)
	if err == nil {
		return nil
	}
	// Not the mount of somebody else who came meanwhile.
	mounts, look := mnt.At(path)
	if look != nil || !slices.ContainsFunc(mounts[:min(1, len(mounts))], func(m mnt.Info) bool { return m.Dev == dev }) {
		return errors.Join(fmt.Errorf("abort FUSE connection of %s: %w", path, err), look)
	}
	err = unix.Unmount(path, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return &fs.PathError{Op: "umount2", Path: path, Err: err}
}
