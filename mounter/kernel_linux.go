package mounter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// linux is the real kernel, with the tools of the host.
type linux struct {
	run     Commands
	helpers []string // where mount helpers are
	release version  // of the running kernel
	tools   *toolVersions
}

func newKernel(o *Options) (Kernel, error) {
	if o.Command == nil {
		return HostKernel(command.New(&command.Options{Logger: o.Logger}))
	}
	return HostKernel(o.Command)
}

// HostKernel is this machine: what an engine without Options.Kernel has, for a
// Kernel that changes some of its methods. The tools run by run.
func HostKernel(run Commands) (Kernel, error) {
	return linux{
		run: run, helpers: []string{"/sbin", "/usr/sbin", "/usr/local/sbin", "/bin", "/usr/bin"},
		release: kernelRelease(), tools: &toolVersions{},
	}, nil
}

func (linux) BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// volatileTypes are what a container has for a root, and memory.
var volatileTypes = map[int64]string{
	unix.OVERLAYFS_SUPER_MAGIC: "an overlay (a container's own root)",
	unix.TMPFS_MAGIC:           "a tmpfs",
	unix.RAMFS_MAGIC:           "a ramfs",
}

func (linux) Volatile(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return volatileTypes[int64(uint32(st.Type))], nil //nolint:unconvert // signed on some platforms
}

func (linux) Shared(path string) (bool, error)              { return mnt.Propagation(path) }
func (linux) IsMountPoint(path string) (bool, error)        { return mnt.IsMountPoint(path) }
func (linux) MountsAt(path string) ([]mnt.Info, error)      { return mnt.At(path) }
func (linux) MountsOf(dev uint64) ([]mnt.Info, error)       { return mnt.OfDevice(dev) }
func (linux) UsersOf(dev uint64) []string                   { return mnt.FindUsers(dev) }
func (linux) Force(path string) (bool, error)               { return mnt.Force(path) }
func (linux) Detach(path string) (bool, error)              { return mnt.Detach(path) }
func (linux) Unwind(path string) (int, error)               { return mnt.Unwind(path) }
func (linux) Bind(src, dst string, o mnt.BindOptions) error { return mnt.Bind(src, dst, o) }

// BoundReadOnly looks at what is bound of file systems in memory, where nodes are.
func (linux) BoundReadOnly(dev uint64) (bool, error) {
	mounts, err := mnt.List()
	if err != nil {
		return false, err
	}
	for _, m := range mounts {
		if m.Root == "/" || !slices.Contains(m.Options, "ro") || m.FSType != "devtmpfs" && m.FSType != "tmpfs" {
			continue
		}
		st, err := look(m.Point, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && unix.Mkdev(st.Rdev_major, st.Rdev_minor) == dev {
			return true, nil
		}
	}
	return false, nil
}

// BindDevice binds the node behind the descriptor, not whatever its path means
// by now.
func (linux) BindDevice(d Device, target string, o mnt.BindOptions) error {
	b, err := blockDevice(d)
	if err != nil {
		return err
	}
	return mnt.BindFD(b.File(), target, o)
}

func (linux) OpenDevice(ctx context.Context, path string) (Device, error) {
	// Read-only: a kernel that guards mounted devices refuses to mount one that
	// somebody has open for writing.
	d, err := blockdev.Open(ctx, path, false)
	if err != nil {
		return nil, err // a nil *blockdev.Device in a Device would not be nil
	}
	return d, nil
}

func blockDevice(d Device) (*blockdev.Device, error) {
	b, ok := d.(*blockdev.Device)
	if !ok {
		return nil, fmt.Errorf("%w: %T was not opened by this kernel", backends.ErrInvalid, d)
	}
	return b, nil
}

// look asks about a path without asking its server.
func look(path string, flags int) (*unix.Statx_t, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, flags|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE|unix.STATX_INO, &st)
	if err != nil {
		return nil, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	return &st, nil
}

func (linux) DeviceAt(path string) (uint64, error) {
	st, err := look(path, 0)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, err
	}
	return unix.Mkdev(st.Rdev_major, st.Rdev_minor), nil
}

func (linux) SameFile(a, b string) (bool, error) {
	sa, err := look(a, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return false, err
	}
	sb, err := look(b, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return false, err
	}
	return sa.Ino == sb.Ino && sa.Dev_major == sb.Dev_major && sa.Dev_minor == sb.Dev_minor, nil
}

// canonical is the path by which the kernel shows an open device: resolved when
// it was opened, and checked now. The descriptor keeps the number from getting
// another meaning.
func canonical(d *blockdev.Device) (string, error) {
	path, err := os.Readlink(d.FDPath())
	if err != nil {
		return "", err
	}
	st, err := look(path, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.FDPath(), nil // its node was removed
	case err != nil:
		return "", err
	case st.Mode&unix.S_IFMT != unix.S_IFBLK || unix.Mkdev(st.Rdev_major, st.Rdev_minor) != d.Num():
		return "", refuse("%s is another device now", path)
	}
	return path, nil
}

func (k linux) Mount(ctx context.Context, m MountRequest) error {
	if m.Device == nil {
		return k.mountOther(ctx, m)
	}
	d, err := blockDevice(m.Device)
	if err != nil {
		return err
	}
	source, err := canonical(d)
	if err != nil {
		return err
	}
	if m.Copy {
		if m, err = besideCopy(m, sysBtrfs); err != nil {
			return err
		}
		if m.FSType == "btrfs" {
			forgetBtrfs(source)
		}
	}
	return mountKernel(source, m)
}

// mountKernel mounts by system call alone.
func mountKernel(source string, m MountRequest) error {
	o, err := mnt.ParseOptions(m.Options)
	if err != nil {
		return err
	}
	o.ReadOnly = o.ReadOnly || m.ReadOnly
	o.Owners = mnt.OwnersOf(m.IDMap)
	return mnt.Mount(source, m.FSType, m.Target, o)
}

// mountOther mounts what is no device: with its helper, as mount(8) does, if
// there is one.
func (k linux) mountOther(ctx context.Context, m MountRequest) error {
	helper, args := k.mountHelper(m.FSType)
	if helper == "" {
		return mountKernel(m.Source, m)
	}
	if len(m.IDMap) > 0 {
		return refuse("%s mounts, and cannot map the owners of files", helper)
	}
	if _, err := mnt.ParseOptions(m.Options); err != nil { // for what it refuses
		return err
	}
	if strings.HasPrefix(m.Source, "-") {
		return fmt.Errorf("%w: source %q, which %s could take for an option", backends.ErrInvalid, m.Source, helper)
	}
	opts := append([]string{}, m.Options...)
	if m.ReadOnly {
		opts = append(opts, "ro")
	}
	for name := range m.Files {
		opts = append(opts, name+"={file:"+name+"}")
	}
	argv := append([]string{m.Source, m.Target}, args...)
	if len(opts) > 0 {
		argv = append(argv, "-o", strings.Join(opts, ","))
	}
	_, err := k.run.Run(ctx, command.Cmd{Path: helper, Args: argv, Env: m.Env, Files: m.Files, Scope: m.Source})
	return err
}

// HasMountHelper reports whether a mount of this type, of what is no Device, is
// made by a program, which gets the options on its command line. It is asked for
// by package kmount.
func (k linux) HasMountHelper(fsType string) bool {
	path, _ := k.mountHelper(fsType)
	return path != ""
}

// mountHelper finds mount.TYPE, or for TYPE.SUBTYPE also mount.TYPE.
func (k linux) mountHelper(fsType string) (path string, args []string) {
	if strings.ContainsRune(fsType, '/') {
		return "", nil
	}
	if p := k.findHelper(fsType); p != "" {
		return p, nil
	}
	if t, _, sub := strings.Cut(fsType, "."); sub {
		return k.findHelper(t), []string{"-t", fsType}
	}
	return "", nil
}

func (k linux) findHelper(fsType string) string {
	for _, dir := range k.helpers {
		p := filepath.Join(dir, "mount."+fsType)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}
