package kmount

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/mount-utils"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// FormatterOptions of [NewFormatter].
type FormatterOptions struct {
	// StateDir and what it is for: see mounter.DeviceOptions.
	StateDir string
	// Identity says how the device at a path is known to be the right one; nil: a
	// path is all that is known. It is asked before each mount.
	Identity func(source string) (backends.Identity, error)
}

// Formatter has the methods of mount.SafeFormatAndMount, and keeps its promise:
// what is not blank is never formatted. A device that cannot be read, that holds
// another file system than was asked for, a partition table, a volume manager's
// mark or data without a signature is refused and left as it was. Errors are both
// kinds of package backends and a mount.MountError, by errors.As.
//
// Differing from mount.SafeFormatAndMount: the types are ext2, ext3, ext4, xfs and
// btrfs; with fstype "" an existing file system of any of them is mounted; a file
// system of another type than asked for is refused before it is mounted, ext3 for
// ext4 too; fsck runs only when the superblock asks for it, and after one that
// failed nothing is mounted; a file system that is smaller than its device is
// grown; the device at target already, as asked for, is success, and anything else
// at target is refused; a target that is missing is made.
type Formatter struct {
	*Mounter
	devices  *mounter.Devices
	identity func(string) (backends.Identity, error)
}

// NewFormatter makes a Formatter of m; nil options are the defaults.
func NewFormatter(m *Mounter, o *FormatterOptions) (*Formatter, error) {
	if o == nil {
		o = &FormatterOptions{}
	}
	devices, err := mounter.NewDevices(&mounter.DeviceOptions{StateDir: o.StateDir, Logger: m.log, Kernel: m.kernel})
	if err != nil {
		return nil, fmt.Errorf("kmount: %w", err)
	}
	f := &Formatter{Mounter: m, devices: devices, identity: o.Identity}
	if f.identity == nil {
		f.identity = func(string) (backends.Identity, error) { return backends.Identity{}, nil }
	}
	return f, nil
}

// Close gives the state directory back.
func (f *Formatter) Close() error { return f.devices.Close() }

// FormatAndMount mounts the device source at target, and makes a file system on it
// first if it is blank and the options do not say ro.
func (f *Formatter) FormatAndMount(source, target, fstype string, options []string) error {
	return f.guarded(source, target, fstype, options, nil, nil)
}

// FormatAndMountSensitive is FormatAndMount with options that must not be seen.
func (f *Formatter) FormatAndMountSensitive(source, target, fstype string, options, sensitiveOptions []string) error {
	return f.FormatAndMountSensitiveWithFormatOptions(source, target, fstype, options, sensitiveOptions, nil) //nolint:forbidigo // not the one of mount-utils
}

// FormatAndMountSensitiveWithFormatOptions adds options of mkfs.
func (f *Formatter) FormatAndMountSensitiveWithFormatOptions(source, target, fstype string, options, sensitiveOptions, formatOptions []string) error {
	return scrub(f.guarded(source, target, fstype, options, sensitiveOptions, formatOptions), sensitiveOptions)
}

func (f *Formatter) guarded(source, target, fstype string, options, sensitive, formatOptions []string) error {
	flags := slices.Concat(options, sensitive)
	path, err := follow(target)
	if err != nil {
		return fmt.Errorf("kmount: %w", err)
	}
	id, err := f.identity(source)
	if err != nil {
		return fmt.Errorf("kmount: identity of device %s: %w", source, err)
	}
	last := &lastStep{}
	err = f.devices.Mount(backends.WithActivity(context.Background(), last), mounter.DeviceMount{
		Device: source, Identity: id, Target: path, FSType: fstype, Flags: backends.NewFlags(flags...), MkfsOptions: formatOptions,
	})
	if err == nil {
		return nil
	}
	message := scrub(err, sensitive).Error() // errors.As gets it out of a scrubbed one
	return &formatError{err, mount.MountError{Type: f.errorType(err, last.get(), source, flags), Message: message}}
}

// GetDiskFormat says what a device holds, "" when it is blank. A device that
// cannot be read is an error. What is no file system that the engine mounts is
// named so that no caller takes it for one.
func (f *Formatter) GetDiskFormat(disk string) (string, error) {
	c, err := f.probe(disk)
	switch {
	case err != nil:
		return "", fmt.Errorf("kmount: %w", err)
	case c.State == blockdev.Blank:
		return "", nil
	case c.State == blockdev.Filesystem && !c.InProgress:
		return c.Type, nil
	}
	return "unknown data, " + c.String(), nil
}

func (f *Formatter) probe(disk string) (c blockdev.Content, err error) {
	ctx := context.Background()
	d, err := f.kernel.OpenDevice(ctx, disk)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Probe(ctx)
}

// Resize has the shape of mount.ResizeFs: it makes the file system mounted at
// deviceMountPath as big as its device, and reports whether it was smaller.
func (f *Formatter) Resize(devicePath, deviceMountPath string) (bool, error) {
	path, err := follow(deviceMountPath)
	if err != nil {
		return false, fmt.Errorf("kmount: %w", err)
	}
	grown, err := f.devices.Grow(context.Background(), devicePath, path)
	if err != nil {
		return false, fmt.Errorf("kmount: grow: %w", err)
	}
	return grown, nil
}

// formatError is an error of the engine and one of mount-utils.
type formatError struct {
	err  error
	kind mount.MountError
}

func (e *formatError) Error() string   { return "kmount: " + e.err.Error() }
func (e *formatError) Unwrap() []error { return []error{e.err, e.kind} }

// errorType says it in mount-utils' terms, by the step that failed.
func (f *Formatter) errorType(err error, step, source string, flags []string) mount.MountErrorType {
	verb, _, _ := strings.Cut(step, " ")
	switch {
	case strings.HasPrefix(verb, "mkfs."):
		return mount.FormatFailed
	case verb == "check":
		return mount.HasFilesystemErrors
	case verb != "probe":
		return mount.UnknownMountError
	case !errors.Is(err, backends.ErrPrecondition):
		return mount.GetDiskFormatFailed
	}
	o, parse := mnt.ParseOptions(flags)
	c, probe := f.probe(source)
	if parse == nil && probe == nil && o.ReadOnly && c.State == blockdev.Blank {
		return mount.UnformattedReadOnly
	}
	return mount.FilesystemMismatch
}

// lastStep hears what the engine does.
type lastStep struct {
	mu   sync.Mutex
	step string
}

func (l *lastStep) Progress(step string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.step = step
}

// Busy is for tools, which are part of a step.
func (l *lastStep) Busy(string) (done func()) { return func() {} }

func (l *lastStep) get() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.step
}
