package kmount

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/mount-utils"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// IsMountPoint reports whether something is mounted at file, where symbolic links
// lead. It asks no server, and works on mounts whose server is dead. The error of
// a path that does not exist is fs.ErrNotExist.
func (m *Mounter) IsMountPoint(file string) (bool, error) {
	path, err := follow(file)
	if err == nil {
		var is bool
		if is, err = mnt.IsMountPoint(path); err == nil {
			return is, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, fs.ErrNotExist // as mount.Mounter has it: callers compare
	}
	return false, err
}

// IsLikelyNotMountPoint is the negation of IsMountPoint, and true with an error. It
// is not a guess.
func (m *Mounter) IsLikelyNotMountPoint(file string) (bool, error) {
	is, err := m.IsMountPoint(file)
	return !is || err != nil, err
}

// CanSafelySkipMountPointCheck is true: Unmount of what is no mount point is no
// error.
func (m *Mounter) CanSafelySkipMountPointCheck() bool { return true }

// List returns all mounts of this mount namespace, in their order. Its time grows
// with their number.
func (m *Mounter) List() ([]mount.MountPoint, error) {
	all, err := mnt.List()
	if err != nil {
		return nil, fmt.Errorf("kmount: %w", err)
	}
	list := make([]mount.MountPoint, len(all))
	for i, o := range all {
		list[i] = mount.MountPoint{Device: o.Source, Path: o.Point, Type: o.FSType, Opts: optionsOf(o)}
	}
	return list, nil
}

// optionsOf are the options as /proc/mounts has them: one ro or rw for the mount
// and the file system, then those of both.
func optionsOf(i mnt.Info) []string {
	word := "rw"
	if i.ReadOnly() {
		word = "ro"
	}
	opts := []string{word}
	for _, o := range slices.Concat(i.Options, i.Super) {
		if o != "ro" && o != "rw" {
			opts = append(opts, o)
		}
	}
	return opts
}

// GetMountRefs returns where else the directory or file at pathname is mounted. A
// path that does not exist has none. It reads the whole mount table.
func (m *Mounter) GetMountRefs(pathname string) ([]string, error) {
	path, err := follow(pathname)
	if errors.Is(err, fs.ErrNotExist) {
		return []string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("kmount: %w", err)
	}
	at, err := carrier(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("kmount: mount below %s: %w", pathname, err)
	}
	all, err := mnt.OfDevice(at.Dev)
	if err != nil {
		return nil, fmt.Errorf("kmount: %w", err)
	}
	var refs []string
	for _, o := range all {
		if o.ID != at.ID && o.Root == at.Root {
			refs = append(refs, o.Point)
		}
	}
	return refs, nil
}

// carrier is the mount on which path lies, with what of the file system is at path
// as its Root.
func carrier(path string) (mnt.Info, error) {
	path, err := canonical(path)
	if err != nil {
		return mnt.Info{}, err
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		stack, err := mnt.At(dir)
		if err != nil {
			return mnt.Info{}, err
		}
		if len(stack) > 0 {
			at := stack[0]
			if dir != path { // a Root may end in //deleted
				at.Root = filepath.Join(at.Root, strings.TrimPrefix(path, dir))
			}
			return at, nil
		}
		if dir == "/" {
			return mnt.Info{}, fmt.Errorf("%s lies on no mount", path)
		}
	}
}

// there looks at what is mounted at target already. With Options.Same, the same is
// success. A device on itself is what mount(2) refuses and move_mount(2) does not.
func (m *Mounter) there(target, source, fstype string, options []string) (bool, error) {
	stack, err := mnt.At(target)
	if err != nil || len(stack) == 0 {
		return false, err
	}
	o, err := mnt.ParseOptions(options)
	if err != nil {
		return false, err
	}
	top := stack[0]
	if top.Root == "/" && top.FSType == fstype && top.ReadOnly() == o.ReadOnly && top.Source == source && m.same {
		return true, nil
	}
	if dev, err := m.kernel.DeviceAt(source); err == nil && dev == top.Dev && dev != 0 && top.Root == "/" {
		return false, fmt.Errorf("%w: the device is mounted there already", backends.ErrInUse)
	}
	return false, nil
}

// bound reports, with Options.Same, whether source is bound at target already.
func (m *Mounter) bound(source, target string, o mnt.BindOptions) (bool, error) {
	if !m.same {
		return false, nil
	}
	stack, err := mnt.At(target)
	if err != nil || len(stack) == 0 {
		return false, err
	}
	src, err := carrier(source)
	if err != nil {
		return false, err
	}
	top := stack[0]
	return top.ID != src.ID && top.Dev == src.Dev && top.Root == src.Root && top.ReadOnly() == (o.ReadOnly || src.ReadOnly()), nil
}
