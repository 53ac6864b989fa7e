package mounter

import (
	"context"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// Kernel is what the engine asks of the operating system and of the tools that
// speak for it. The real one is used when Options.Kernel is nil; package
// mountertest has one in memory.
//
// No method may look at a mounted path in a way that can hang on a dead server,
// except StatFS, which the engine calls on a goroutine of its own.
type Kernel interface {
	// BootID differs after each boot.
	BootID() (string, error)
	// Volatile says why what is written below dir does not outlive the
	// container or the boot; "" when it does.
	Volatile(dir string) (why string, err error)
	// Shared reports whether a mount made below path reaches other namespaces.
	Shared(path string) (bool, error)

	// IsMountPoint is fs.ErrNotExist when path is missing.
	IsMountPoint(path string) (bool, error)
	// MountsAt lists the mounts stacked at path, topmost first; none, and no
	// error, when path is no mount point or does not exist.
	MountsAt(path string) ([]mnt.Info, error)
	// MountsOf lists all mounts of the file system with this device number.
	MountsOf(dev uint64) ([]mnt.Info, error)
	// Mount mounts a device, or anything else that has a type and a source.
	Mount(ctx context.Context, m MountRequest) error
	// Bind binds a directory, BindDevice the node of a device onto a file.
	Bind(source, target string, o mnt.BindOptions) error
	BindDevice(d Device, target string, o mnt.BindOptions) error
	// Unwind unmounts until path is no mount point, and looks.
	Unwind(path string) (n int, err error)

	// OpenDevice opens a block device for reading and holds it, which pins the
	// instance: neither its path nor its number can come to mean another disk.
	OpenDevice(ctx context.Context, path string) (Device, error)
	// DeviceAt is the number of the block device node at path, 0 when there is
	// something else.
	DeviceAt(path string) (uint64, error)
	// SameFile reports whether two paths lead to one directory.
	SameFile(a, b string) (bool, error)
	// BackedBy reports whether the file system mounted at path lies on the
	// device with this number, as the file system itself says.
	BackedBy(path, fsType string, dev uint64) (bool, error)

	// Copies lists the other devices from which a file system with this UUID is
	// mounted now, in this namespace or another. ext2, ext3 and ext4 are one type.
	Copies(ctx context.Context, d Device, fsType, uuid string) ([]Copy, error)

	// Mkfs makes a file system on d, over whatever is there.
	Mkfs(ctx context.Context, d Device, fsType string, options []string) error
	// Check repairs an unmounted file system as far as that is safe without
	// asking; force does not believe a clean superblock. An error means: do not
	// mount.
	Check(ctx context.Context, d Device, fsType string, force bool) error
	// GrowsOnline reports whether this process may grow a mounted fsType.
	GrowsOnline(fsType string) bool
	// Grow makes the file system as big as the device: the one mounted at path,
	// or, with path "", the unmounted one on d.
	Grow(ctx context.Context, d Device, fsType, path string) error
	// FSSize is how many bytes of its device the file system mounted at path
	// spans; 0: not known.
	FSSize(ctx context.Context, d Device, fsType, path string) (int64, error)
	// StatFS may hang.
	StatFS(path string) (backends.VolumeStats, error)
	// SetGroup gives the directory at path, and what is made in it, to a group.
	SetGroup(path string, gid int) error

	LUKS
}

// Commands runs the tools of the host: a *command.Runner, or what stands for it.
type Commands interface {
	Run(ctx context.Context, c command.Cmd) (command.Result, error)
}

// Device is an open block device.
type Device interface {
	Path() string
	Num() uint64 // as unix.Mkdev makes it
	Size() (int64, error)
	// DiskSeq tells this instance of the disk from every other one before the
	// next boot; 0 when the kernel does not know.
	DiskSeq() (uint64, error)
	ReadOnly() (bool, error)
	SetReadOnly(ro bool) error
	// Claimed reports whether somebody has the device exclusively: a mount,
	// another device on top, or a program such as mkfs.
	Claimed() (bool, error)
	Verify(ctx context.Context, want backends.Identity) error
	// Probe reads what the device holds. An I/O error is an error, never Blank.
	Probe(ctx context.Context) (blockdev.Content, error)
	// NeedsReplay reports whether mounting the file system that Probe found would
	// write to the device, even read-only.
	NeedsReplay(ctx context.Context, c blockdev.Content) (bool, error)
	Close() error
}

// Copy is a mounted file system with the UUID of another one.
type Copy struct {
	Device   string // for messages
	Relation blockdev.Relation
}

// MountRequest is one mount to make.
type MountRequest struct {
	Device Device // nil: Source is what to mount
	Source string
	FSType string
	Target string
	// Copy says that a file system with the same UUID is mounted from another disk.
	Copy bool
	// IDMap maps the owners of files, or the mount fails; empty: as they are.
	IDMap []backends.IDMap
	// Options as in mount(8): the backend's and the CO's, which may hold
	// secrets. ReadOnly besides them.
	Options  []string
	ReadOnly bool
	Env      backends.Secrets           // for a mount helper
	Files    map[string]backends.Secret // option name -> content of a file for the helper
}
