package mounter

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// checkSource refuses an answer of OpenVolume that cannot be used.
func (s *staging) checkSource(src *backends.Source) error {
	if src == nil {
		return refuse("the backend gave no source")
	}
	n := 0
	for _, given := range []bool{src.Device != nil, src.Mount != nil, src.FUSE != nil, src.Dir != ""} {
		if given {
			n++
		}
	}
	switch {
	case n != 1:
		return refuse("the backend gave %d of device, mount, FUSE and directory, and one is needed", n)
	case src.Device != nil && s.opts.NoDevices:
		return refuse("the backend gave a device, and Traits.Devices is not set")
	case s.req.Capability.Block && len(src.IDMap) > 0:
		return refuse("the backend maps the owners of files, and a raw block device has none")
	case s.req.Capability.Block && src.Device == nil:
		return refuse("a raw block device was asked for, and the volume is none")
	case src.Device != nil:
		return checkDevice(src.Device)
	case src.Dir != "" && (!filepath.IsAbs(src.Dir) || filepath.Clean(src.Dir) == "/"):
		return refuse("the backend gave directory %q, which is not an absolute path below /", src.Dir)
	case src.Mount != nil:
		return s.checkMount(src.Mount)
	case src.FUSE != nil:
		return s.checkFUSE(src.FUSE)
	}
	return nil
}

func (s *staging) checkMount(m *backends.Mount) error {
	if m.FSType == "" {
		return refuse("the backend gave a mount without a type")
	}
	o, err := mnt.ParseOptions(m.Options)
	switch {
	case err != nil:
		return refuse("the backend's mount options: %v", err)
	case o.ReadOnly && !s.readOnly:
		return refuse("the backend's options mount the volume read-only, and it was asked for writable")
	}
	return nil
}

func checkDevice(d *backends.Device) error {
	id := d.Identity
	known := id.Serial != "" || id.WWID != "" || id.DMUUID != "" || id.BackingIno != 0 || id.Check != nil
	switch {
	case !filepath.IsAbs(d.Path):
		return refuse("the backend gave device path %q, which is not absolute", d.Path)
	case !known && id.Unverified == "":
		return refuse("the backend does not say how device %s is known to be the right one (Identity)", d.Path)
	}
	return checkEncryption(d.Encryption)
}

// setSource records what OpenVolume answered. What the kernel said of the device
// before stays until it is asked again: the mount may stand.
func (r *record) setSource(src *backends.Source) {
	before := r.Device
	r.State, r.Device, r.Mount, r.Server, r.Dir = src.State, nil, nil, nil, ""
	if src.Device == nil {
		r.Mapping = nil
	}
	switch {
	case src.Device != nil:
		id := src.Device.Identity
		r.Source = sourceDevice
		r.Device = &deviceRecord{
			Path: src.Device.Path, Serial: id.Serial, WWID: id.WWID, DMUUID: id.DMUUID,
			BackingDev: id.BackingDev, BackingIno: id.BackingIno, Unverified: id.Unverified,
		}
		if before != nil {
			r.Device.Num, r.Device.DiskSeq, r.Device.Size, r.Device.ReadOnly = before.Num, before.DiskSeq, before.Size, before.ReadOnly
		}
	case src.Mount != nil:
		r.Source = sourceMount
		r.Mount = &mountRecord{Source: src.Mount.Source, FSType: src.Mount.FSType, Remote: src.Mount.Remote}
	case src.FUSE != nil:
		r.setFUSE(src.FUSE)
	default:
		r.Source = sourceDir
		r.Dir = filepath.Clean(src.Dir)
	}
}

// openDevice opens a device and fails in a way that the CO retries: a device
// that is not there yet, or not any more, may come.
func (e *Engine) openDevice(ctx context.Context, path string) (Device, error) {
	d, err := e.kernel.OpenDevice(ctx, path)
	switch {
	case err == nil:
		return d, nil
	case errors.Is(err, backends.ErrPrecondition):
		return nil, err
	default:
		return nil, unavailable("open device: %w", err)
	}
}

// openRecorded opens the device of a record and makes sure that it is still that
// one: path, number, instance, identity.
func (e *Engine) openRecorded(ctx context.Context, r *deviceRecord) (Device, error) {
	d, err := e.openDevice(ctx, r.Path)
	if err != nil {
		return nil, err
	}
	if err := sameDevice(ctx, d, r); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func sameDevice(ctx context.Context, d Device, r *deviceRecord) error {
	seq, err := d.DiskSeq()
	switch {
	case err != nil:
		return unavailable("device %s: %w", r.Path, err)
	case d.Num() != r.Num:
		return refuse("device %s has number %s now and had %s when the volume was staged", r.Path, devName(d.Num()), devName(r.Num))
	case seq != r.DiskSeq:
		return refuse("device %s is another disk (sequence number %d) than when the volume was staged (%d)", r.Path, seq, r.DiskSeq)
	}
	return d.Verify(ctx, r.identity())
}

// describe records what the kernel says of an open device.
func (r *deviceRecord) describe(d Device) error {
	before, err := *r, error(nil)
	r.Num = d.Num()
	if r.DiskSeq, err = d.DiskSeq(); err != nil {
		return unavailable("device %s: %w", r.Path, err)
	}
	if r.Size, err = d.Size(); err != nil {
		return unavailable("device %s: %w", r.Path, err)
	}
	if r.ReadOnly, err = d.ReadOnly(); err != nil {
		return unavailable("device %s: %w", r.Path, err)
	}
	if before.DiskSeq == r.DiskSeq && before.Num == r.Num && r.DiskSeq != 0 {
		// The flag may be the engine's own by now.
		r.ReadOnly = before.ReadOnly
	}
	return nil
}

// knows reports whether r can tell a mount of its volume from another one: it
// cannot before the source has been opened once.
func (r *record) knows() bool {
	return r.Mounted != nil || r.Source == sourceMount || r.Source == sourceFUSE || r.Source == sourceDir || r.Source == sourceDevice && r.data().Num != 0
}

// ours reports whether mount m, seen at path, is the volume of r.
func (e *Engine) ours(s *store, m mnt.Info, path string, r *record) (bool, error) {
	if r.BootID == e.boot && s.shows(r, m) {
		return true, nil
	}
	return e.fromSource(m, path, r)
}

// fromSource reports whether mount m, seen at path, is of the device, the
// directory or the source of r.
func (e *Engine) fromSource(m mnt.Info, path string, r *record) (bool, error) {
	switch r.Source {
	case sourceDevice:
		dev := r.data().Num
		if dev == 0 || r.BootID != e.boot {
			return false, nil
		}
		if m.Dev == dev {
			return true, nil
		}
		return e.backedBy(path, m.FSType, dev)
	case sourceMount, sourceFUSE:
		return m.Source == r.Mount.Source && sameType(m.FSType, r.Mount.FSType), nil
	case sourceDir:
		same, err := e.kernel.SameFile(path, r.Dir)
		if missing(err) {
			return false, nil
		}
		return same, err
	}
	return false, nil
}

// backedBy asks the file systems whose mounts show a number that no device has.
func (e *Engine) backedBy(path, fsType string, dev uint64) (bool, error) {
	if fsType != "btrfs" {
		return false, nil
	}
	is, err := e.kernel.BackedBy(path, fsType, dev)
	if err != nil {
		return false, unavailable("which devices hold %s: %w", path, err)
	}
	return is, nil
}

// sameType knows that a helper may mount a more exact type than it was given
// (nfs becomes nfs4).
func sameType(got, asked string) bool {
	return got == asked || asked == "nfs" && got == "nfs4"
}

// devName prints a device number as the kernel does.
func devName(dev uint64) string {
	major := dev>>8&0xfff | dev>>32&^0xfff
	minor := dev&0xff | dev>>12&^0xff
	return fmt.Sprintf("%d:%d", major, minor)
}

// describeMount is a mount in a message.
func describeMount(m mnt.Info) string {
	return fmt.Sprintf("%s of %s (device %s, root %s)", m.FSType, m.Source, devName(m.Dev), m.Root)
}
