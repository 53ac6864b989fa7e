package mountertest

import (
	"context"
	"fmt"
	"io/fs"
	"slices"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

// Disk is a block device of a [Kernel].
type Disk struct {
	k        *Kernel
	path     string
	num, seq uint64
	size     int64
	readOnly bool
	identity backends.Identity
	content  blockdev.Content
	gone     bool
	claimed  bool
	luks     *luks // nil: not encrypted
	on       *Disk // of a mapping: the encrypted disk below
}

// AddDisk makes a blank disk.
func (k *Kernel) AddDisk(path string, size int64, identity backends.Identity) *Disk {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.addDisk(path, size, identity)
}

func (k *Kernel) addDisk(path string, size int64, identity backends.Identity) *Disk {
	k.lastDev++
	k.seq++
	d := &Disk{k: k, path: path, num: k.lastDev, seq: k.seq, size: size, identity: identity, content: blockdev.Content{State: blockdev.Blank}}
	k.devices[path] = d
	return d
}

// SetContent puts something on the disk.
func (d *Disk) SetContent(c blockdev.Content) {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	d.content = c
}

// Content is what is on the disk.
func (d *Disk) Content() blockdev.Content {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	return d.content
}

// Resize gives the disk another size; the file system on it stays as it is.
func (d *Disk) Resize(size int64) {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	d.size = size
}

// Replace puts another disk behind the same path and number, with the identity
// given.
func (d *Disk) Replace(identity backends.Identity) {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	d.k.seq++
	d.seq, d.identity, d.content = d.k.seq, identity, blockdev.Content{State: blockdev.Blank}
}

// Remove pulls the disk out, and Insert puts it back as another instance.
func (d *Disk) Remove() {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	d.gone = true
}

// Insert puts a removed disk back.
func (d *Disk) Insert() {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	d.k.seq++
	d.gone, d.seq = false, d.k.seq
}

// SetReadOnly sets the flag of the device behind the engine's back.
func (d *Disk) SetReadOnly(ro bool) {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	d.readOnly = ro
}

// IsReadOnly is the flag of the device.
func (d *Disk) IsReadOnly() bool {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	return d.readOnly
}

// Claim has somebody else hold the disk exclusively, as a running mkfs does.
func (d *Disk) Claim(held bool) {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	d.claimed = held
}

// handle is an open Disk.
type handle struct{ d *Disk }

// DefaultSize is the size of a disk that nobody added, and that a backend names
// all the same: it is made when it is opened first, with the identity that is
// asked for first.
const DefaultSize = 1 << 30

// OpenDevice implements mounter.Kernel.
func (k *Kernel) OpenDevice(_ context.Context, path string) (mounter.Device, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("OpenDevice", ""); err != nil {
		return nil, err
	}
	d := k.devices[path]
	if d == nil {
		d = k.addDisk(path, DefaultSize, backends.Identity{Unverified: "made on demand"})
	}
	if d.gone {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return handle{d}, nil
}

func (h handle) Path() string { return h.d.path }
func (h handle) Num() uint64  { return h.d.num }
func (h handle) Close() error { return nil }

func (h handle) Size() (int64, error) {
	h.d.k.mu.Lock()
	defer h.d.k.mu.Unlock()
	return h.d.size, h.d.k.call("Size", "")
}

func (h handle) DiskSeq() (uint64, error) {
	h.d.k.mu.Lock()
	defer h.d.k.mu.Unlock()
	return h.d.seq, h.d.k.call("DiskSeq", "")
}

func (h handle) ReadOnly() (bool, error) {
	h.d.k.mu.Lock()
	defer h.d.k.mu.Unlock()
	return h.d.readOnly, h.d.k.call("ReadOnly", "")
}

func (h handle) Claimed() (bool, error) {
	h.d.k.mu.Lock()
	defer h.d.k.mu.Unlock()
	mounted := slices.ContainsFunc(h.d.k.mounts, func(m mount) bool { return m.dev == h.d && m.Dev == h.d.num })
	return h.d.claimed || mounted || h.d.luks != nil && h.d.luks.name != "", h.d.k.call("Claimed", "")
}

func (h handle) SetReadOnly(ro bool) error {
	h.d.k.mu.Lock()
	defer h.d.k.mu.Unlock()
	if err := h.d.k.call("SetReadOnly", fmt.Sprintf("readonly=%v %s", ro, h.d.path)); err != nil {
		return err
	}
	h.d.readOnly = ro
	h.d.k.changed("SetReadOnly")
	return nil
}

func (h handle) Verify(_ context.Context, want backends.Identity) error {
	h.d.k.mu.Lock()
	defer h.d.k.mu.Unlock()
	if err := h.d.k.call("Verify", ""); err != nil {
		return err
	}
	if h.d.identity.Unverified == "made on demand" {
		h.d.identity = want
		if want.Size != 0 {
			h.d.size = want.Size
		}
	}
	got := h.d.identity
	for _, f := range []struct{ name, got, want string }{
		{"serial", got.Serial, want.Serial},
		{"wwid", got.WWID, want.WWID},
		{"dm uuid", got.DMUUID, want.DMUUID},
		{"backing device", fmt.Sprint(got.BackingDev), fmt.Sprint(want.BackingDev)},
		{"backing inode", fmt.Sprint(got.BackingIno), fmt.Sprint(want.BackingIno)},
		{"size", fmt.Sprint(h.d.size), fmt.Sprint(want.Size)},
	} {
		if f.want != "" && f.want != "0" && f.got != f.want {
			return &blockdev.MismatchError{Device: h.d.path, Field: f.name, Got: f.got, Want: f.want}
		}
	}
	return nil
}

func (h handle) Probe(context.Context) (blockdev.Content, error) {
	h.d.k.mu.Lock()
	defer h.d.k.mu.Unlock()
	if err := h.d.k.call("Probe", ""); err != nil {
		return blockdev.Content{}, err
	}
	return h.d.content, nil
}

// NeedsReplay is true of what is not clean and has a journal.
func (h handle) NeedsReplay(_ context.Context, c blockdev.Content) (bool, error) {
	h.d.k.mu.Lock()
	defer h.d.k.mu.Unlock()
	return !c.Clean && (c.Journal || c.Type == "xfs" || c.Type == "btrfs"), h.d.k.call("NeedsReplay", "")
}

// Copies implements mounter.Kernel.
func (k *Kernel) Copies(_ context.Context, dev mounter.Device, fsType, uuid string) ([]mounter.Copy, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var copies []mounter.Copy
	for _, m := range k.mounts {
		if d := m.dev; d != nil && m.FSType == fsType && d.content.UUID == uuid && d.path != dev.Path() {
			copies = append(copies, mounter.Copy{Device: d.path, Relation: blockdev.Different})
		}
	}
	return copies, k.call("Copies", "")
}

// Mkfs implements mounter.Kernel. A failure leaves data without a signature, as
// a killed mkfs does.
func (k *Kernel) Mkfs(_ context.Context, dev mounter.Device, fsType string, _ []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[dev.Path()]
	d.content, d.luks = blockdev.Content{State: blockdev.Unknown, Offset: 4096}, nil
	err := k.call("Mkfs", "mkfs."+fsType+" "+d.path)
	k.changed("half of Mkfs")
	if err != nil {
		return err
	}
	d.content = blockdev.Content{State: blockdev.Filesystem, Type: fsType, UUID: fmt.Sprintf("uuid-%d", len(k.log)), Size: d.size, Clean: true}
	k.changed("Mkfs")
	return nil
}

// Check implements mounter.Kernel.
func (k *Kernel) Check(_ context.Context, dev mounter.Device, fsType string, _ bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("Check", "check "+fsType+" "+dev.Path()); err != nil {
		return err
	}
	d := k.devices[dev.Path()]
	d.content.Clean, d.content.Errors = true, false
	k.changed("Check")
	return nil
}

// GrowsOnline implements mounter.Kernel.
func (k *Kernel) GrowsOnline(fsType string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fsType == "xfs" || fsType == "btrfs" || !k.noOnlineExt4
}

// Grow implements mounter.Kernel.
func (k *Kernel) Grow(_ context.Context, dev mounter.Device, fsType, path string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("Grow", "grow "+fsType+" "+dev.Path()+" "+path); err != nil {
		return err
	}
	d := k.devices[dev.Path()]
	d.content.Size = d.size
	k.changed("Grow")
	return nil
}

// FSSize implements mounter.Kernel.
func (k *Kernel) FSSize(_ context.Context, dev mounter.Device, _, _ string) (int64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.devices[dev.Path()].content.Size, k.call("FSSize", "")
}
