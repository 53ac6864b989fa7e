package blockdev

import (
	"fmt"
	"os"
	"strconv"

	"github.com/csikit/csikit/backends"
)

// State is what a device holds, as far as reading it can tell.
type State uint8

// What reading can tell.
const (
	// Blank means that every byte that was looked at was read without an error and is
	// zero, and every place where a known format keeps its signature was looked
	// at. The zero State is not Blank, so that a forgotten error formats nothing.
	Blank State = iota + 1
	// Filesystem means a file system that csikit knows by name. It is never formatted
	// because it fails to mount.
	Filesystem
	// Foreign means a known signature that is no mountable file system: a partition
	// table, a RAID or LVM member, an encrypted device, swap.
	Foreign
	// Unknown means bytes that are not zero, and no signature.
	Unknown
)

// String is the name used in records and messages.
func (s State) String() string {
	switch s {
	case Blank:
		return "blank"
	case Filesystem:
		return "filesystem"
	case Foreign:
		return "foreign"
	case Unknown:
		return "unknown data"
	default:
		return "invalid state " + strconv.Itoa(int(s))
	}
}

// Content is what [Device.Probe] found.
type Content struct {
	State State
	Type  string // "ext4", "xfs", "gpt", "lvm2": blkid's names where it has one; "" for Blank and Unknown
	UUID  string // "" when the format has none that is read here
	// Size is how many bytes the file system says it spans, 0 when that is not
	// read. A device that is bigger can be grown into.
	Size int64
	// Clean says that the superblock asks for no check: unmounted in order and no
	// journal to replay for ext and FAT; nothing against it for the others, whose
	// kernels replay at mount.
	Clean bool
	// Journal says that an ext file system has one: the kernel replays it, and a
	// file system that was not unmounted needs no check.
	Journal bool
	// Orphans says that an ext file system has, or may have, files that were deleted
	// while they were open. The kernel removes them at a read-only mount too, and
	// also at one without the journal, unless the device cannot be written to.
	Orphans bool
	// InProgress is an xfs whose mkfs did not end: it was never mountable.
	InProgress bool
	// Errors says that the superblock records errors, or is itself damaged: a
	// wrong checksum, fields that cannot be true, only a mirror left.
	Errors bool
	// Offset is where the signature is, or the first byte that is not zero.
	Offset int64
}

// String is a short description for messages.
func (c Content) String() string {
	switch c.State {
	case Filesystem, Foreign:
		s := fmt.Sprintf("%s at byte %d", c.Type, c.Offset)
		if c.UUID != "" {
			s += ", uuid " + c.UUID
		}
		return s
	case Unknown:
		return fmt.Sprintf("data of no known format, first at byte %d", c.Offset)
	default:
		return c.State.String()
	}
}

// MismatchError says which part of a device's identity is not what it should
// be. It is backends.ErrPrecondition.
type MismatchError struct{ Device, Field, Got, Want string }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s is not the right device: %s is %s, want %s", e.Device, e.Field, e.Got, e.Want)
}

// Unwrap makes errors.Is(err, backends.ErrPrecondition) hold.
func (e *MismatchError) Unwrap() error { return backends.ErrPrecondition }

// Device is a block device behind an open descriptor. While it is open the
// kernel keeps this instance: the same path or number cannot come to mean
// another disk, and a loop device cannot be attached anew.
type Device struct {
	f    *os.File
	path string
	num  uint64
	sys  string // where sysfs is
}

// Path is what the device was opened by: for messages. Use FDPath to hand the
// device on.
func (d *Device) Path() string { return d.path }

// File is the open descriptor; it stays the Device's.
func (d *Device) File() *os.File { return d.f }

// FDPath names the open descriptor for system calls of this process. Children
// have their own descriptors: they need Path, or the file in ExtraFiles.
func (d *Device) FDPath() string { return "/proc/self/fd/" + strconv.Itoa(int(d.f.Fd())) }

// Num is the device number, as unix.Mkdev makes it.
func (d *Device) Num() uint64 { return d.num }

// Close gives the descriptor back.
func (d *Device) Close() error { return d.f.Close() }

// Loop is an attached loop device.
type Loop struct {
	Path     string // "/dev/loop7"
	Number   int
	DiskSeq  uint64 // of this attachment; 0 where the kernel does not say (before 5.15)
	Dev, Ino uint64 // of the file behind, as stat(2) gives them
	Name     string // lo_file_name
	ReadOnly bool
	DirectIO bool // what the kernel made of AttachOptions.DirectIO
	// AutoClear: the device detaches itself when its last user closes it.
	AutoClear bool
	// Offset and SizeLimit are 0 unless the device shows a part of the file.
	Offset, SizeLimit uint64
}

// AttachOptions say how a file becomes a loop device.
type AttachOptions struct {
	Name      string // kept by the kernel as lo_file_name, at most 63 bytes
	ReadOnly  bool
	DirectIO  bool   // the file is read and written past the page cache, where its file system can
	BlockSize uint32 // logical; 0: the kernel's choice
}
