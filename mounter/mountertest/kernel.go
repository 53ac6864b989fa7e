package mountertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// Kernel is a mounter.Kernel in memory. It is safe for concurrent use.
type Kernel struct {
	mu       sync.Mutex
	boot     int
	seq      uint64
	lastID   int
	lastDev  uint64
	mounts   []mount // in the order in which they were made
	devices  map[string]*Disk
	groups   map[string]int
	health   map[string][]backends.Health
	faults   map[string]fault
	log      []string
	onChange func(string)
	// noOnlineExt4 is a process without CAP_SYS_RESOURCE.
	noOnlineExt4 bool
}

type mount struct {
	mnt.Info
	dev *Disk  // nil: a directory, or a mount of something remote
	dir string // of a bound directory
	rem string // of a mount of something remote: its source
}

type fault struct {
	err  error
	left int // how often; negative: always
}

// hostDev is the device number of the root file system.
const hostDev = 8<<8 | 1

// NewKernel is a machine without devices and mounts.
func NewKernel() *Kernel {
	return &Kernel{boot: 1, lastDev: 7 << 8, devices: map[string]*Disk{}, groups: map[string]int{}, health: map[string][]backends.Health{}, faults: map[string]fault{}}
}

func (k *Kernel) top(path string) int {
	for i, m := range slices.Backward(k.mounts) {
		if m.Point == path {
			return i
		}
	}
	return -1
}

func (k *Kernel) add(m mount, ro bool) {
	k.lastID++
	m.ID = k.lastID
	m.Options = []string{"rw", "relatime"}
	if ro {
		m.Options[0] = "ro"
	}
	k.mounts = append(k.mounts, m)
}

func (k *Kernel) mapOwners(mapped bool) {
	if m := &k.mounts[len(k.mounts)-1]; mapped {
		m.Options = append(m.Options, "idmapped")
	}
}

// BootID implements mounter.Kernel.
func (k *Kernel) BootID() (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return "boot-" + strconv.Itoa(k.boot), k.call("BootID", "")
}

// Volatile implements mounter.Kernel.
func (k *Kernel) Volatile(string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return "", k.call("Volatile", "")
}

// Shared implements mounter.Kernel.
func (k *Kernel) Shared(string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return true, k.call("Shared", "")
}

// IsMountPoint implements mounter.Kernel.
func (k *Kernel) IsMountPoint(path string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("IsMountPoint", ""); err != nil {
		return false, err
	}
	if k.top(filepath.Clean(path)) >= 0 {
		return true, nil
	}
	_, err := os.Lstat(path)
	return false, err
}

// MountsAt implements mounter.Kernel.
func (k *Kernel) MountsAt(path string) ([]mnt.Info, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("MountsAt", ""); err != nil {
		return nil, err
	}
	var list []mnt.Info
	for _, m := range slices.Backward(k.mounts) {
		if m.Point == filepath.Clean(path) {
			list = append(list, m.Info)
		}
	}
	return list, nil
}

// MountsOf implements mounter.Kernel.
func (k *Kernel) MountsOf(dev uint64) ([]mnt.Info, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("MountsOf", ""); err != nil {
		return nil, err
	}
	var list []mnt.Info
	for _, m := range k.mounts {
		if m.Dev == dev {
			list = append(list, m.Info)
		}
	}
	return list, nil
}

// Mount implements mounter.Kernel.
func (k *Kernel) Mount(_ context.Context, m mounter.MountRequest) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	source, n := m.Source, mount{Info: mnt.Info{Root: "/", Point: m.Target, FSType: m.FSType, Source: m.Source, Super: m.Options}}
	if m.Device != nil {
		source = m.Device.Path()
	}
	if err := k.call("Mount", "mount "+m.FSType+" "+source+" "+m.Target); err != nil {
		return err
	}
	if err := isDir(m.Target); err != nil {
		return err
	}
	if m.Device == nil {
		k.lastDev++
		n.Dev, n.rem = k.lastDev, m.Source
	} else {
		d := k.devices[source]
		if d == nil || d.content.Type != m.FSType || d.content.InProgress {
			return fmt.Errorf("mount %s: %w", source, fs.ErrInvalid)
		}
		if m.FSType == "xfs" && !m.Copy && k.hasCopy(d) {
			return fmt.Errorf("mount %s: duplicate UUID: %w", source, syscall.EINVAL)
		}
		n.Dev, n.Source, n.dev = d.num, source, d
	}
	k.add(n, m.ReadOnly)
	k.mapOwners(len(m.IDMap) > 0)
	k.changed("Mount")
	return nil
}

func (k *Kernel) hasCopy(d *Disk) bool {
	return slices.ContainsFunc(k.mounts, func(m mount) bool { return m.dev != nil && m.dev != d && m.dev.content.UUID == d.content.UUID })
}

func isDir(path string) error {
	st, err := os.Lstat(path)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s: not a directory", path)
	}
	return err
}

// Bind implements mounter.Kernel.
func (k *Kernel) Bind(source, target string, o mnt.BindOptions) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("Bind", "bind "+source+" "+target); err != nil {
		return err
	}
	if err := isDir(target); err != nil {
		return err
	}
	n := mount{Info: mnt.Info{Dev: hostDev, Root: source, Point: target, FSType: "ext4", Source: "/dev/root"}, dir: source}
	if i := k.top(source); i >= 0 {
		n = k.mounts[i]
		n.Point = target
		o.ReadOnly = o.ReadOnly || n.ReadOnly()
	}
	k.add(n, o.ReadOnly)
	k.mapOwners(o.Owners != nil || n.Mapped())
	k.changed("Bind")
	return nil
}

// BindDevice implements mounter.Kernel.
func (k *Kernel) BindDevice(d mounter.Device, target string, o mnt.BindOptions) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("BindDevice", "bind "+d.Path()+" "+target); err != nil {
		return err
	}
	if st, err := os.Lstat(target); err != nil || !st.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("%s: not a file", target))
	}
	k.add(mount{
		Info: mnt.Info{Dev: 6, Root: "/" + filepath.Base(d.Path()), Point: target, FSType: "devtmpfs", Source: "devtmpfs"},
		dev:  k.devices[d.Path()],
	}, o.ReadOnly)
	k.changed("BindDevice")
	return nil
}

// BoundReadOnly reports whether the node of a device is bound read-only.
func (k *Kernel) BoundReadOnly(dev uint64) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.mounts, func(m mount) bool {
		return m.FSType == "devtmpfs" && m.dev.num == dev && m.ReadOnly()
	}), k.call("BoundReadOnly", "")
}

// Unwind implements mounter.Kernel.
func (k *Kernel) Unwind(path string) (n int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		i := k.top(filepath.Clean(path))
		if i < 0 {
			return n, nil
		}
		if err := k.call("Unwind", "unmount "+path); err != nil {
			return n, err
		}
		k.mounts = slices.Delete(k.mounts, i, i+1)
		n++
		k.changed("Unwind")
	}
}

// DeviceAt implements mounter.Kernel.
func (k *Kernel) DeviceAt(path string) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("DeviceAt", ""); err != nil {
		return 0, err
	}
	if i := k.top(filepath.Clean(path)); i >= 0 && k.mounts[i].FSType == "devtmpfs" {
		return k.mounts[i].dev.num, nil
	}
	if d := k.devices[path]; d != nil {
		return d.num, nil
	}
	_, err := os.Stat(path)
	return 0, err
}

// SameFile implements mounter.Kernel.
func (k *Kernel) SameFile(a, b string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.behind(a) == k.behind(b), k.call("SameFile", "")
}

// behind names what a path leads to.
func (k *Kernel) behind(path string) string {
	path = filepath.Clean(path)
	i := k.top(path)
	switch {
	case i < 0:
		return "dir " + path
	case k.mounts[i].dev != nil:
		return "dev " + k.mounts[i].dev.path
	case k.mounts[i].dir != "":
		return "dir " + k.mounts[i].dir
	default:
		return "mount " + k.mounts[i].rem
	}
}

// BackedBy implements mounter.Kernel.
func (k *Kernel) BackedBy(path, _ string, dev uint64) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.top(path)
	return i >= 0 && k.mounts[i].dev != nil && k.mounts[i].dev.num == dev, k.call("BackedBy", "")
}

// StatFS implements mounter.Kernel.
func (k *Kernel) StatFS(path string) (backends.VolumeStats, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("StatFS", ""); err != nil {
		return backends.VolumeStats{}, err
	}
	total := int64(1 << 30)
	if i := k.top(path); i >= 0 && k.mounts[i].dev != nil {
		total = k.mounts[i].dev.content.Size
	}
	return backends.VolumeStats{Total: total, Available: total, Inodes: 1000, InodesUsed: 1, InodesFree: 999}, nil
}

// SetGroup implements mounter.Kernel.
func (k *Kernel) SetGroup(path string, gid int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("SetGroup", fmt.Sprintf("chgrp %d %s", gid, path)); err != nil {
		return err
	}
	k.groups[path] = gid
	return nil
}

var _ mounter.Kernel = (*Kernel)(nil)
