package mnt_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/internal/mountapi"
	"github.com/csikit/csikit/mounter/mnt"
)

// oddMounts makes mounts of every kind that the two interfaces may show
// differently.
func oddMounts(t *testing.T, d string) {
	attrs := map[string]uint64{
		"ro": mnt.AttrReadOnly, "nosuid": mnt.AttrNoSUID, "nodev,noexec": mnt.AttrNoDev | mnt.AttrNoExec, "noatime": mnt.AttrNoAtime,
		"strictatime": mnt.AttrStrictAtime, "nodiratime": mnt.AttrNoDirAtime, "nosymfollow": mnt.AttrNoSymFollow, "none": 0,
		"all": mnt.AttrReadOnly | mnt.AttrNoSUID | mnt.AttrNoDev | mnt.AttrNoExec | mnt.AttrNoDirAtime | mnt.AttrNoSymFollow,
	}
	src := mkdir(t, d, "src")
	bind(t, src, src)
	must(t, unix.Mount("", src, "", unix.MS_SHARED, ""))
	for name, a := range attrs {
		must(t, mnt.Bind(src, mkdir(t, d, name), mnt.BindOptions{Attr: a}))
	}
	for _, name := range []string{"a b", "new\nline", "tab\t", `back\slash`, "hash#", `\040`, strings.Repeat("ä", 100)} {
		must(t, mnt.Mount("so "+name, "tmpfs", mkdir(t, d, name), mnt.Options{Data: "size=64k"}))
		bind(t, mkdir(t, d, name, name), mkdir(t, d, "bind "+name))
	}
	bind(t, mkdir(t, d, "deleted"), mkdir(t, d, "of deleted"))
	must(t, os.Remove(d+"/deleted"))
	must(t, unix.Mount("", mkdir(t, d, "nosource"), "tmpfs", 0, ""))
	must(t, unix.Mount("x", mkdir(t, d, "super"), "tmpfs", unix.MS_RDONLY|unix.MS_SYNCHRONOUS|unix.MS_DIRSYNC|unix.MS_LAZYTIME, ""))
	must(t, unix.Mount("proc", mkdir(t, d, "proc"), "proc", 0, "hidepid=1"))
	bind(t, src, mkdir(t, d, "slave"))
	must(t, unix.Mount("", d+"/slave", "", unix.MS_SLAVE, ""))
	hungFUSE(t, mkdir(t, d, "fuse"), 0)
	fd := testenv.FUSE(t, 0)
	t.Cleanup(func() { must(t, unix.Close(fd)) })
	must(t, unix.Mount("me@there:", mkdir(t, d, "sub"), "fuse.ssh#fs", 0, "fd="+itoa(fd)+",rootmode=40000,user_id=0,group_id=0"))
}

// TestStatmountShowsMountinfo: what comes from statmount and what comes from
// mountinfo are the same, in every field.
func TestStatmountShowsMountinfo(t *testing.T) {
	testenv.Root(t)
	d := tempDir(t)
	oddMounts(t, d)
	table, err := mnt.List()
	must(t, err)
	devs := map[uint64][]mnt.Info{}
	for _, i := range table {
		devs[i.Dev] = append(devs[i.Dev], i)
	}
	for dev, want := range devs {
		got, err := mnt.OfDevice(dev)
		must(t, err)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("OfDevice(%#x):\n got %+v\nwant %+v", dev, got, want)
		}
	}
	for _, i := range table {
		if !strings.HasPrefix(i.Point, d) && i.Point != "/" {
			continue
		}
		got, err := mnt.At(i.Point)
		must(t, err)
		restore := mountapi.Hide(mountapi.Statmount)
		want, err := mnt.At(i.Point)
		restore()
		must(t, err)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("At(%q):\n got %+v\nwant %+v", i.Point, got, want)
		}
	}
}

// withoutProc hides the mount table from this process's calls: what still works
// has not read it.
func withoutProc(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("true"); err != nil {
		t.Skip(err)
	}
	p := "/proc/self/mountinfo"
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("not to be read\n"), 0o600))
	resolved := "/proc/" + itoa(os.Getpid()) + "/mountinfo"
	must(t, unix.Mount(filepath.Join(dir, "f"), resolved, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(resolved, unix.MNT_DETACH)) })
	if b, err := os.ReadFile(p); err != nil || !strings.HasPrefix(string(b), "not") {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := mnt.List(); err == nil {
		t.Fatal("the table can still be read")
	}
}

// TestHotPathsReadNoTable: with statmount, nothing but List reads the mount table.
func TestHotPathsReadNoTable(t *testing.T) {
	testenv.Root(t)
	needStatmount(t)
	d := tempDir(t)
	src, p := mkdir(t, d, "src"), mkdir(t, d, "p")
	bind(t, src, src)
	withoutProc(t)
	must(t, mnt.Bind(src, p, mnt.BindOptions{ReadOnly: true}))
	must(t, mnt.SetReadOnly(p, false))
	stack, err := mnt.At(p)
	must(t, err)
	if len(stack) != 1 || stack[0].Point != p {
		t.Errorf("At: %+v", stack)
	}
	of, err := mnt.OfDevice(stack[0].Dev)
	must(t, err)
	if len(of) != 3 {
		t.Errorf("OfDevice: %+v", of)
	}
	if shared, err := mnt.Propagation(p); err != nil || shared {
		t.Errorf("Propagation: %v, %v", shared, err)
	}
	if n, err := mnt.Unwind(p); n != 1 || err != nil {
		t.Errorf("Unwind: %d, %v", n, err)
	}
}

func needStatmount(t testing.TB) {
	t.Helper()
	if !mnt.HasStatmount() {
		t.Skip("missing: Linux 6.13 (statmount with the source)")
	}
}

// TestOfDeviceBtrfs: a btrfs shows a number that its device does not have, the
// same in both interfaces, also for a subvolume.
func TestOfDeviceBtrfs(t *testing.T) {
	testenv.Root(t)
	loop, _ := loopOf(t, "btrfs")
	d := tempDir(t)
	p := mkdir(t, d, "p")
	must(t, mnt.Mount(loop, "btrfs", p, mnt.Options{}))
	t.Cleanup(func() { _, err := mnt.Unwind(p); must(t, err) })
	must(t, mnt.Bind(p, mkdir(t, d, "q"), mnt.BindOptions{}))
	t.Cleanup(func() { _, err := mnt.Unwind(d + "/q"); must(t, err) })
	onKernels(t, func(t *testing.T) {
		m := top(t, p)
		var st unix.Stat_t
		must(t, unix.Stat(loop, &st))
		if m.Dev == uint64(st.Rdev) { //nolint:unconvert // 32 bits on some platforms
			t.Error("btrfs shows its device's own number: the engine need not ask it")
		}
		of, err := mnt.OfDevice(m.Dev)
		must(t, err)
		points := []string{}
		for _, i := range of {
			points = append(points, i.Point)
		}
		if !slices.Equal(points, []string{p, d + "/q"}) {
			t.Errorf("mounts of the file system: %q", points)
		}
		if of, err := mnt.OfDevice(uint64(st.Rdev)); err != nil || len(of) != 0 { //nolint:unconvert // as above
			t.Errorf("mounts of the device's number: %v, %v", of, err)
		}
	})
}

// TestAtWhileMountsChange: others mount and unmount all the time, and no answer is
// wrong for it.
func TestAtWhileMountsChange(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		p, other := mkdir(t, d, "p"), mkdir(t, d, "other")
		bind(t, p, p)
		dev := top(t, p).Dev
		stop, done := make(chan struct{}), make(chan error, 1)
		go func() {
			var err error
			for err == nil {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if err = unix.Mount(other, other, "", unix.MS_BIND, ""); err == nil {
					err = unix.Unmount(other, unix.MNT_DETACH)
				}
			}
			done <- err
		}()
		for range 200 {
			if stack, err := mnt.At(p); err != nil || len(stack) != 1 {
				t.Fatalf("%+v, %v", stack, err)
			}
			of, err := mnt.OfDevice(dev)
			if err != nil || !slices.ContainsFunc(of, func(i mnt.Info) bool { return i.Point == p }) {
				t.Fatalf("OfDevice: %+v, %v", of, err)
			}
			if _, err := mnt.At(other); err != nil && !errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), "is not in") {
				t.Fatal(err)
			}
		}
		close(stop)
		must(t, <-done)
	})
}
