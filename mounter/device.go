package mounter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// Devices mounts devices for callers that know a device and a directory, and no
// volume: old code behind mounter/kmount. It is the part of [Engine.Stage] that
// begins when a device is there, with the same guard: what is not blank is never
// formatted. All it remembers is an mkfs that has not ended.
//
// A path says little about a disk. Whoever knows more (a serial number, the file
// behind a loop device, that a disk is a volume's) uses an [Engine].
type Devices struct{ e *Engine }

// DeviceOptions of [NewDevices].
type DeviceOptions struct {
	// StateDir, an absolute path on the host's own disk, holds the memory of an
	// mkfs that was begun. With "" it goes with the process: a device whose mkfs
	// was cut short by a crash is then refused as data without a signature.
	StateDir  string
	DefaultFS string       // what a blank device gets when no type is asked for; "": ext4
	Logger    *slog.Logger // nil: slog.Default()
	Kernel    Kernel       // nil: this machine's
}

// DeviceMount asks for a device at a directory.
type DeviceMount struct {
	Device      string // absolute
	Identity    backends.Identity
	Target      string // absolute; made when it is missing
	FSType      string // "": whatever is there
	Flags       backends.Flags
	MkfsOptions []string
}

// NewDevices takes the state directory, if there is one.
func NewDevices(o *DeviceOptions) (*Devices, error) {
	if o == nil {
		o = &DeviceOptions{}
	}
	opts := Options{StateDir: o.StateDir, DefaultFS: o.DefaultFS, Logger: o.Logger, Kernel: o.Kernel}
	if o.StateDir == "" {
		opts.StateDir = "/"
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("mounter: %w", err)
	}
	e := &Engine{node: noNode{}, opts: opts, kernel: opts.Kernel, log: opts.Logger, tools: make(slots, opts.MaxTools)}
	if e.boot, err = e.kernel.BootID(); err != nil {
		return nil, fmt.Errorf("mounter: boot id: %w", err)
	}
	if o.StateDir == "" {
		e.store = &store{records: map[string]*record{}}
	} else if e.store, err = e.openState(); err != nil {
		return nil, fmt.Errorf("mounter: %w", err)
	}
	return &Devices{e}, nil
}

// Close gives the state directory back.
func (d *Devices) Close() error { return d.e.Close() }

// Mount mounts the device, and makes a file system on it first if it is blank. A
// dirty ext file system is checked, one that is smaller than the device is grown.
// The device at the directory already, as asked for, is success; anything else
// there is [backends.ErrPrecondition].
func (d *Devices) Mount(ctx context.Context, req DeviceMount) error {
	path, err := cleanPath("target path", req.Target)
	if err != nil {
		return err
	}
	id := "device " + filepath.Clean(req.Device)
	store, done, err := d.e.begin(ctx, id, path)
	if err != nil {
		return err
	}
	defer done()
	s := &staging{Engine: d.e, store: store, path: path, req: StageRequest{
		ID: id, Path: path, Capability: backends.Capability{Mode: backends.SingleNodeWriter, FSType: req.FSType, Flags: req.Flags},
	}}
	return s.forgetDevice(s.oneDevice(ctx, req))
}

// oneDevice is run and open for a device that nobody needs to open.
func (s *staging) oneDevice(ctx context.Context, req DeviceMount) (err error) {
	if err := s.parse(); err != nil {
		return err
	}
	if s.mounts, err = s.mountsAt(s.path); err != nil {
		return err
	}
	s.newRecord(nil)
	if err := s.checkPath(); err != nil {
		return err
	}
	id := req.Identity
	if id.Unverified == "" {
		id.Unverified = "all that is known of it is its path"
	}
	s.src = &backends.Source{Device: &backends.Device{Path: req.Device, Identity: id, MkfsOptions: req.MkfsOptions}}
	if err := checkDevice(s.src.Device); err != nil {
		return err
	}
	s.rec.setSource(s.src)
	s.rec.Phase = phaseOpen
	err = s.device(ctx)
	if err != nil && len(s.mounts) == 0 && final(err) {
		return s.takeBack(err)
	}
	return err
}

// takeBack leaves nothing mounted behind a failure after the mount.
func (s *staging) takeBack(err error) error {
	mounts, look := s.mountsAt(s.path)
	if look != nil || len(mounts) == 0 {
		return errors.Join(err, look)
	}
	if is, look := s.fromSource(mounts[0], s.path, s.rec); !is || look != nil {
		return errors.Join(err, look)
	}
	return s.unmountAgain(err)
}

// forgetDevice drops the records of the device's path, except the one of an mkfs
// that has not ended. The next disk may have the path.
func (s *staging) forgetDevice(err error) error {
	for _, r := range s.store.of(s.req.ID) {
		if r.Format != nil && r.Format.State == formatStarted {
			continue
		}
		if left := s.store.remove(r); left != nil {
			return unavailable("%w", errors.Join(err, left))
		}
	}
	return err
}

// Grow makes the file system mounted at path as big as its device, and reports
// whether it was smaller.
func (d *Devices) Grow(ctx context.Context, device, path string) (grown bool, err error) {
	dev, err := d.e.openDevice(ctx, device)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	m, err := d.mountOf(dev, path)
	if err != nil {
		return false, err
	}
	fsSize, err := d.e.kernel.FSSize(ctx, dev, m.FSType, path)
	if err != nil {
		return false, unavailable("size of the %s at %s: %w", m.FSType, path, err)
	}
	size, err := dev.Size()
	if err != nil {
		return false, unavailable("device %s: %w", device, err)
	}
	switch {
	case !canGrow(fsSize, size):
		return false, nil
	case m.ReadOnly():
		return false, refuse("%s is mounted read-only", path)
	case !d.e.kernel.GrowsOnline(m.FSType):
		return false, refuse("growing a mounted %s needs CAP_SYS_RESOURCE; it grows when it is mounted the next time", m.FSType)
	}
	return true, d.e.growTo(ctx, dev, m.FSType, path)
}

// mountOf is the mount at path, which must be of the device.
func (d *Devices) mountOf(dev Device, path string) (mnt.Info, error) {
	mounts, err := d.e.mountsAt(path)
	switch {
	case err != nil:
		return mnt.Info{}, err
	case len(mounts) == 0:
		return mnt.Info{}, refuse("nothing is mounted at %s", path)
	}
	is := mounts[0].Dev == dev.Num()
	if !is {
		is, err = d.e.backedBy(path, mounts[0].FSType, dev.Num())
	}
	if err == nil && !is {
		err = refuse("device %s is not what is mounted at %s: %s", dev.Path(), path, describeMount(mounts[0]))
	}
	return mounts[0], err
}

// noNode is the backend of devices that nobody opens.
type noNode struct{}

func (noNode) OpenVolume(context.Context, backends.OpenVolumeRequest) (*backends.Source, error) {
	return nil, refuse("it is a device, not a volume")
}

func (noNode) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }
