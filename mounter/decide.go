package mounter

import (
	"fmt"
	"slices"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
)

// evidence is all that the decision whether to format is made of.
type evidence struct {
	Device  string // for messages
	Content blockdev.Content
	Size    int64 // of the device; 0: not known

	Backend       backends.FormatState // what the backend remembers
	BackendFSType string
	Record        *formatRecord // what this node remembers; nil: nothing
	SameInstance  bool          // Record is of this boot and of this instance of the disk

	ReadOnly  bool
	Want      string // the type that was asked for; "": any
	DefaultFS string // what a blank device gets when none was asked for
}

// verdict says what to do with the device: mount FSType as it is, or make it
// first.
type verdict struct {
	Format bool
	FSType string
}

// mountable are the types of which the engine knows how they are checked, grown
// and compared with their device.
var mountable = []string{"ext2", "ext3", "ext4", "xfs", "btrfs"}

// decide is the one place that can allow an mkfs. Whatever it does not
// recognise it refuses.
func decide(e evidence) (verdict, error) {
	switch c := e.Content; {
	case c.State == blockdev.Filesystem && c.InProgress:
		return e.format("an mkfs.xfs that did not end")
	case c.State == blockdev.Filesystem:
		return e.existing()
	case c.State == blockdev.Blank:
		return e.format("blank")
	case c.State == blockdev.Unknown && e.mayOverwrite():
		return e.format("data without a signature")
	case c.State == blockdev.Unknown && e.done() != "":
		return verdict{}, e.refuse("it was formatted with %s, and what is there now is no file system", e.done())
	case c.State == blockdev.Unknown:
		return verdict{}, e.refuse("nobody remembers an mkfs that was cut short here, so this may be somebody's data%s", e.almost())
	case isLUKS(c):
		return verdict{}, e.refuse("it is encrypted, and the backend does not say that the volume is to be")
	case c.State == blockdev.Foreign:
		return verdict{}, e.refuse("it belongs to something else")
	default:
		return verdict{}, e.refuse("state %d of the probe is not known", c.State)
	}
}

// existing decides about a file system that is there: it is mounted as it is, or
// not at all.
func (e evidence) existing() (verdict, error) {
	found := e.Content.Type
	switch done := e.done(); {
	case e.Backend == backends.FormatNever && done == "" && e.started() == "":
		return verdict{}, e.refuse("the backend says that it was never formatted, and it holds %s: left by somebody else", found)
	case !slices.Contains(mountable, found):
		return verdict{}, e.refuse("csikit does not mount %s", found)
	case e.Want != "" && e.Want != found:
		return verdict{}, e.refuse("%s was asked for, and it holds %s", e.Want, found)
	case done != "" && done != found && done != anyType:
		return verdict{}, e.refuse("it was formatted with %s, and it holds %s", done, found)
	case e.Size > 0 && e.Content.Size > e.Size:
		// A check would adapt the file system to what is left of it.
		return verdict{}, e.refuse("the file system spans %d bytes, and the device has %d: its end is missing", e.Content.Size, e.Size)
	case done == "" && e.started() != "" && e.started() != found:
		return verdict{}, e.refuse("an mkfs.%s was cut short here, and it holds %s, which is not ours", e.started(), found)
	}
	return verdict{FSType: found}, nil
}

// format decides about a device that holds nothing that is known to be of use.
func (e evidence) format(what string) (verdict, error) {
	fs := e.Want
	if fs == "" {
		fs = e.DefaultFS
	}
	switch {
	case e.done() != "":
		return verdict{}, e.refuse("it was formatted with %s before, and now it reads as %s: it is never formatted again", e.done(), what)
	case e.ReadOnly:
		return verdict{}, e.refuse("it reads as %s, and a volume that is used read-only is not formatted", what)
	case fs == "":
		return verdict{}, e.refuse("it reads as %s, no file system type was asked for, and the driver has no default", what)
	case !slices.Contains(mountable, fs):
		return verdict{}, fmt.Errorf("%w: csikit does not make file systems of type %q", backends.ErrInvalid, fs)
	}
	return verdict{Format: true, FSType: fs}, nil
}

// anyType stands for a backend that says Done and not of what type.
const anyType = "some file system"

// done is the type that is remembered as finished, "" when none is.
func (e evidence) done() string {
	switch {
	case e.Backend == backends.FormatDone && e.BackendFSType != "":
		return e.BackendFSType
	case e.Backend == backends.FormatDone:
		return anyType
	case e.Record != nil && e.Record.State == formatDone:
		return e.Record.FSType
	}
	return ""
}

// started is the type of an mkfs that is remembered to have begun on this very
// device and not to have ended.
func (e evidence) started() string {
	switch {
	case e.Backend == backends.FormatStarted && e.BackendFSType != "":
		return e.BackendFSType
	case e.recordStarted():
		return e.Record.FSType
	}
	return ""
}

func (e evidence) recordStarted() bool {
	return e.Record != nil && e.Record.State == formatStarted && e.SameInstance
}

// mayOverwrite reports whether data without a signature is known to be worth
// nothing: the backend vouches for it, or an mkfs of ours left it.
func (e evidence) mayOverwrite() bool {
	if e.done() != "" {
		return false
	}
	return e.Backend == backends.FormatNever || e.Backend == backends.FormatStarted || e.recordStarted()
}

// almost says why a started mkfs that this node does remember does not count.
func (e evidence) almost() string {
	if e.Record == nil || e.Record.State != formatStarted {
		return ""
	}
	return fmt.Sprintf(" (an mkfs.%s was started on this volume, but before a reboot or on another instance of the disk)", e.Record.FSType)
}

func (e evidence) refuse(format string, args ...any) error {
	return refuse("device %s holds %s: %s. Nothing was changed. To release it by hand, make sure that nobody needs what is on it, "+
		"then clear it (wipefs --all, and blkdiscard --zeroout) or make the file system on it, and let the volume be staged again",
		e.Device, e.Content, fmt.Sprintf(format, args...))
}
