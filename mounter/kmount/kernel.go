package kmount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"k8s.io/mount-utils"
	"k8s.io/utils/exec"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// KernelOptions of [OverInterface].
type KernelOptions struct {
	// Base answers what a mount.Interface cannot be asked: what a device is and
	// holds, the boot, figures of a file system. nil: this machine. For a
	// FakeMounter that is mountertest.NewKernel().
	Base mounter.Kernel
	// Exec runs mkfs, fsck and their like; nil: Base does. They get the device's
	// path. With it Base must be nil.
	Exec exec.Interface
}

// OverInterface makes a kernel for csikit's engine of a mount.Interface: mounts,
// binds, unmounts and all questions about mounts go to m, the rest to Base.
//
//	engine, err := mounter.New(node, &mounter.Options{Kernel: kernel, ...})
//
// What gets lost. A mount.Interface takes no context, so a mount that hangs, hangs.
// A read-only bind is writable for a moment. It lists sources and paths, and
// neither device numbers nor what of a file system is mounted: where Base shows as
// many mounts at the path those are taken, and else a mount is known by its source,
// so that two directories of one file system look like one mount. Secrets that a
// backend gives for a mount helper (Mount.Env, Mount.Files) and an IDMap have no way
// through it, and are refused with backends.ErrUnsupported; a copy of a file system
// that is mounted is backends.ErrPrecondition.
//
// The promises about data do not depend on m: devices are identified, read and
// formatted by Base, and its word counts.
func OverInterface(m mount.Interface, o *KernelOptions) (mounter.Kernel, error) {
	if o == nil {
		o = &KernelOptions{}
	}
	if m == nil || o.Base != nil && o.Exec != nil {
		return nil, fmt.Errorf("%w: kmount: no mount.Interface, or both Base and Exec", backends.ErrInvalid)
	}
	k := &overInterface{Kernel: o.Base, m: m, list: list{memory: map[string][]string{}}}
	if k.Kernel != nil {
		return k, nil
	}
	var err error
	if o.Exec != nil {
		k.Kernel, err = mounter.HostKernel(tools{o.Exec})
	} else {
		k.Kernel, err = mounter.HostKernel(newRunner(nil))
	}
	if err != nil {
		return nil, fmt.Errorf("kmount: %w", err)
	}
	return k, nil
}

type overInterface struct {
	mounter.Kernel // Base
	m              mount.Interface
	list
}

// IsMountPoint takes a mount whose server is dead for the mount that it is.
func (k *overInterface) IsMountPoint(path string) (bool, error) {
	is, err := k.m.IsMountPoint(path)
	if mnt.IsCorrupted(err) {
		return true, nil
	}
	return is, err
}

// MountsAt prefers what Base knows, if it sees the same.
func (k *overInterface) MountsAt(path string) ([]mnt.Info, error) {
	all, err := k.infos()
	if err != nil {
		return nil, err
	}
	at := all.at(path)
	slices.Reverse(at) // topmost first
	if len(at) > 0 {
		if known, err := k.Kernel.MountsAt(path); err == nil && len(known) == len(at) && known[0].Source == at[0].Source {
			return known, nil
		}
	}
	return at, nil
}

// MountsOf adds up what m lists and what Base has besides.
func (k *overInterface) MountsOf(dev uint64) ([]mnt.Info, error) {
	all, err := k.infos()
	if err != nil {
		return nil, err
	}
	of, err := k.Kernel.MountsOf(dev)
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.Dev == dev && !slices.ContainsFunc(of, func(o mnt.Info) bool { return o.Point == i.Point }) {
			of = append(of, i)
		}
	}
	return of, nil
}

// Mount passes the options as sensitive ones: the CO's may be.
func (k *overInterface) Mount(_ context.Context, r mounter.MountRequest) error {
	if len(r.Env.Keys()) > 0 || len(r.Files) > 0 {
		return fmt.Errorf("%w: a mount.Interface does not take secrets for a mount helper", backends.ErrUnsupported)
	}
	if len(r.IDMap) > 0 {
		return errOwners
	}
	if r.Copy {
		return fmt.Errorf("%w: another disk with this file system's UUID is mounted, and a mount.Interface cannot say which of the two is meant: unmount the other one, or give this one another UUID", backends.ErrPrecondition)
	}
	if _, err := mnt.ParseOptions(r.Options); err != nil { // for what it refuses
		return err
	}
	source, options := r.Source, []string(nil)
	if r.Device != nil {
		source = r.Device.Path()
	}
	if r.ReadOnly {
		options = []string{"ro"}
	}
	if err := k.m.MountSensitive(source, r.Target, r.FSType, options, r.Options); err != nil {
		return err
	}
	k.remember(r.Target, append(slices.Clone(options), r.Options...))
	return nil
}

var errOwners = fmt.Errorf("%w: a mount.Interface does not map the owners of files", backends.ErrUnsupported)

// Bind binds a path.
func (k *overInterface) Bind(source, target string, o mnt.BindOptions) error {
	if o.Owners != nil {
		return errOwners
	}
	options := append([]string{"bind"}, bindWords(o)...)
	if err := k.m.Mount(source, target, "", options); err != nil {
		return err
	}
	k.remember(target, options)
	return nil
}

// BindDevice binds the device's path, which Base holds open.
func (k *overInterface) BindDevice(d mounter.Device, target string, o mnt.BindOptions) error {
	return k.Bind(d.Path(), target, o)
}

// maxStack bounds Unwind.
const maxStack = 1024

// Unwind unmounts until m says that path is no mount point.
func (k *overInterface) Unwind(path string) (n int, err error) {
	for ; n < maxStack; n++ {
		is, err := k.IsMountPoint(path)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return n, err
		case !is:
			k.forget(path)
			return n, nil
		}
		if err := k.m.Unmount(path); err != nil {
			return n, fmt.Errorf("unmount %s (%d taken off): %w", path, n, err)
		}
	}
	return n, fmt.Errorf("%w: %s is still a mount point after %d unmounts", backends.ErrUnavailable, path, n)
}

// DeviceAt knows the device node that m says is bound at path.
func (k *overInterface) DeviceAt(path string) (uint64, error) {
	num, err := k.Kernel.DeviceAt(path)
	if err != nil || num != 0 {
		return num, err
	}
	all, err := k.infos()
	if err != nil {
		return 0, err
	}
	if at := all.at(path); len(at) > 0 && filepath.IsAbs(at[len(at)-1].Source) && at[len(at)-1].FSType == "" {
		return k.Kernel.DeviceAt(at[len(at)-1].Source)
	}
	return 0, nil
}

// SameFile also believes m, when it says that the one is mounted at the other.
func (k *overInterface) SameFile(a, b string) (bool, error) {
	if same, err := k.Kernel.SameFile(a, b); same || err != nil {
		return same, err
	}
	all, err := k.infos()
	if err != nil {
		return false, err
	}
	a, b = filepath.Clean(a), filepath.Clean(b)
	return all.source(a) == b || all.source(b) == a, nil
}

// BackedBy asks m as well.
func (k *overInterface) BackedBy(path, fsType string, dev uint64) (bool, error) {
	all, err := k.infos()
	if err != nil {
		return false, err
	}
	if at := all.at(path); len(at) > 0 && at[len(at)-1].Dev == dev {
		return true, nil
	}
	return k.Kernel.BackedBy(path, fsType, dev)
}

// bindWords are the options of a bind as mount(8) calls them.
func bindWords(o mnt.BindOptions) []string {
	var words []string
	for _, w := range []struct {
		attr uint64
		word string
	}{
		{mnt.AttrNoSUID, "nosuid"},
		{mnt.AttrNoDev, "nodev"},
		{mnt.AttrNoExec, "noexec"},
		{mnt.AttrNoAtime, "noatime"},
		{mnt.AttrStrictAtime, "strictatime"},
		{mnt.AttrNoDirAtime, "nodiratime"},
		{mnt.AttrNoSymFollow, "nosymfollow"},
	} {
		if o.Attr&w.attr != 0 {
			words = append(words, w.word)
		}
	}
	if o.ReadOnly || o.Attr&mnt.AttrReadOnly != 0 {
		words = append(words, "ro")
	}
	return words
}
