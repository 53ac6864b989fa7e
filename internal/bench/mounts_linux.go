package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	mountutils "k8s.io/mount-utils"

	"github.com/csikit/csikit/mounter/mnt"
)

// mountRig is a directory in memory with a mount to bind, as a staged volume is
// one, and with as many other mounts as a row wants.
type mountRig struct {
	dir, source, other, target string
	utils                      mountutils.Interface
	others                     int
}

func newMountRig(dir string) (*mountRig, error) {
	quietUtils()
	r := &mountRig{dir: filepath.Join(dir, "mounts"), utils: mountutils.New("")}
	r.source, r.other, r.target = filepath.Join(r.dir, "source"), filepath.Join(r.dir, "other"), filepath.Join(r.dir, "target")
	if err := mountMemory(r.dir); err != nil {
		return nil, err
	}
	return r, errors.Join(os.Mkdir(r.target, 0o755), mountMemory(r.source), mountMemory(r.other))
}

// quietUtils keeps mount-utils from telling of every disk that it formats.
func quietUtils() {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
}

// close takes all mounts of the rig at once.
func (r *mountRig) close() error {
	return errors.Join(unix.Unmount(r.dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW), os.Remove(r.dir))
}

// grow adds mounts until there are n besides.
func (r *mountRig) grow(n int) error {
	for ; r.others < n; r.others++ {
		p := filepath.Join(r.dir, fmt.Sprintf("other-%d", r.others))
		if err := errors.Join(os.Mkdir(p, 0o755), rawBind(r.other, p)); err != nil {
			return err
		}
	}
	return nil
}

func (r *mountRig) mounted() error   { return rawBind(r.source, r.target) }
func (r *mountRig) unmounted() error { return unix.Unmount(r.target, unix.UMOUNT_NOFOLLOW) }

// mounts measures what a publish is made of.
func mounts(ctx context.Context, c config, dir string) (*table, error) {
	r, err := newMountRig(dir)
	if err != nil {
		return nil, err
	}
	t := &table{title: "mounts"}
	for _, rows := range []func(context.Context, config, *mountRig) ([]*row, error){bindRows, unmountRows, checkRows} {
		more, err := rows(ctx, c, r)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		t.rows = append(t.rows, more...)
	}
	return t, r.close()
}

func bindRows(ctx context.Context, c config, r *mountRig) ([]*row, error) {
	binding := func(name string, op func() error) contender {
		return contender{name, paired{op: op, after: r.unmounted}}
	}
	bind, err := contest(ctx, c, &row{item: "bind", goal: atMost(nanoseconds, 10e3, -1)},
		binding("csikit", func() error { return mnt.Bind(r.source, r.target, mnt.BindOptions{}) }),
		binding("mount-utils", func() error { return r.utils.Mount(r.source, r.target, "", []string{"bind"}) }),
		binding("mount(2)", r.mounted))
	if err != nil {
		return nil, err
	}
	readOnly, err := contest(ctx, c, &row{item: "bind, read-only", goal: atMost(nanoseconds, 10e3, -1),
		note: "the raw calls bind, then remount: for a moment it can be written to. csikit's mount is read-only from the first instant"},
		binding("csikit", func() error { return mnt.Bind(r.source, r.target, mnt.BindOptions{ReadOnly: true}) }),
		binding("mount-utils", func() error { return r.utils.Mount(r.source, r.target, "", []string{"bind", "ro"}) }),
		binding("mount(2) twice", func() error {
			return errors.Join(r.mounted(), unix.Mount("", r.target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		}))
	return []*row{bind, readOnly}, err
}

func unmountRows(ctx context.Context, c config, r *mountRig) ([]*row, error) {
	ours := func() error {
		_, err := mnt.Unmount(r.target)
		return err
	}
	theirs := func() error { return r.utils.Unmount(r.target) }
	unmount, err := contest(ctx, c, &row{item: "unmount", goal: atMost(nanoseconds, 15e3, -1)},
		contender{"csikit", paired{before: r.mounted, op: ours}},
		contender{"mount-utils", paired{before: r.mounted, op: theirs}},
		contender{"umount2(2)", paired{before: r.mounted, op: r.unmounted}})
	if err != nil {
		return nil, err
	}
	nothing, err := contest(ctx, c, &row{item: "unmount, no mount there", goal: atMost(nanoseconds, 2e3, -1)},
		contender{"csikit", paired{op: ours}},
		contender{"mount-utils", paired{op: theirs}},
		contender{"umount2(2)", paired{op: func() error {
			if err := r.unmounted(); !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("umount2 of no mount: %w", err)
			}
			return nil
		}}})
	return []*row{unmount, nothing}, err
}

// errNoMount is an answer that a check must not give.
var errNoMount = errors.New("a mount point is none")

func yes(is bool, err error) error {
	if err == nil && !is {
		err = errNoMount
	}
	return err
}

// checkRows ask whether there is a mount, the more the others are, and which are
// a device's.
func checkRows(ctx context.Context, c config, r *mountRig) ([]*row, error) {
	var rows []*row
	for _, n := range c.mounts {
		if err := r.grow(n); err != nil {
			return nil, err
		}
		check, err := checkRow(ctx, c, r, n)
		if err != nil {
			return nil, err
		}
		rows = append(rows, check)
	}
	device, err := deviceRow(ctx, c, r)
	return append(rows, device), err
}

// deviceRow finds the two mounts of the source among all others.
func deviceRow(ctx context.Context, c config, r *mountRig) (*row, error) {
	var st unix.Stat_t
	if err := errors.Join(unix.Stat(r.source, &st), r.mounted()); err != nil {
		return nil, err
	}
	device, err := contest(ctx, c, &row{item: fmt.Sprintf("the 2 mounts of a device, %d mounts", r.others), goal: atMost(nanoseconds, 7e6, -1)},
		contender{"csikit", paired{op: func() error {
			found, err := mnt.OfDevice(st.Dev)
			return yes(len(found) == 2, err)
		}}},
		contender{"mount-utils GetMountRefs", paired{op: func() error {
			found, err := r.utils.GetMountRefs(r.source)
			return yes(len(found) == 1, err) // the others
		}}},
		contender{"read(2) of mountinfo", paired{op: func() error {
			_, err := os.ReadFile("/proc/self/mountinfo")
			return err
		}}})
	return device, errors.Join(err, r.unmounted())
}

func checkRow(ctx context.Context, c config, r *mountRig, n int) (*row, error) {
	figures := []*figure{{name: "csikit"}, {name: "statx(2)"}, {name: "mount-utils IsLikelyNotMountPoint"}, {name: "mount-utils IsMountPoint"}, {name: "mount-utils List"}}
	err := interleave(ctx, c.rounds,
		figures[0].timed(c.slice/2, func() error { return yes(mnt.IsMountPoint(r.source)) }),
		figures[1].timed(c.slice/2, func() error {
			var st unix.Statx_t
			err := unix.Statx(unix.AT_FDCWD, r.source, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st)
			return yes(st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, err)
		}),
		figures[2].timed(c.slice/2, func() error {
			not, err := r.utils.IsLikelyNotMountPoint(r.source)
			return yes(!not, err)
		}),
		figures[3].timed(c.slice/2, func() error { return yes(r.utils.IsMountPoint(r.source)) }),
		figures[4].timed(c.slice/2, func() error {
			all, err := r.utils.List()
			return yes(len(all) > n, err)
		}))
	for _, f := range figures {
		f.allocs = nil
	}
	return &row{
		item: fmt.Sprintf("is it a mount point, %d mounts", n), csikit: figures[0], others: figures[1:], goal: atMost(nanoseconds, 1000, -1),
	}, err
}

// rawBind is the system call alone.
func rawBind(source, target string) error { return unix.Mount(source, target, "", unix.MS_BIND, "") }
