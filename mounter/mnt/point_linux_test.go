package mnt_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/internal/mountapi"
	"github.com/csikit/csikit/mounter/mnt"
)

func itoa(n int) string { return strconv.Itoa(n) }

// pointScenarios make a path in dir and say whether it is a mount point.
var pointScenarios = []struct {
	name string
	make func(t *testing.T, dir string) string
	want bool
}{
	{"same-fs bind of a directory", func(t *testing.T, d string) string {
		bind(t, mkdir(t, d, "a"), mkdir(t, d, "b"))
		return d + "/b"
	}, true},
	{"file on file", func(t *testing.T, d string) string {
		bind(t, mkfile(t, d, "a"), mkfile(t, d, "b"))
		return d + "/b"
	}, true},
	{"deleted source", func(t *testing.T, d string) string {
		bind(t, mkdir(t, d, "a"), mkdir(t, d, "b"))
		must(t, os.Remove(d+"/a"))
		return d + "/b"
	}, true},
	{"stacked", func(t *testing.T, d string) string {
		bind(t, mkdir(t, d, "a"), mkdir(t, d, "b"))
		bind(t, d+"/a", d+"/b")
		bind(t, d+"/a", d+"/b")
		return d + "/b"
	}, true},
	{"renamed parent", func(t *testing.T, d string) string {
		bind(t, mkdir(t, d, "a"), mkdir(t, d, "p/b"))
		must(t, os.Rename(d+"/p", d+"/q"))
		return d + "/q/b"
	}, true},
	{"trailing slash", func(t *testing.T, d string) string {
		bind(t, mkdir(t, d, "a"), mkdir(t, d, "b"))
		return d + "/b//"
	}, true},
	{"symlink last", func(t *testing.T, d string) string {
		bind(t, mkdir(t, d, "a"), mkdir(t, d, "b"))
		must(t, os.Symlink(d+"/b", d+"/l"))
		return d + "/l"
	}, false},
	{"symlink last and trailing slash", func(t *testing.T, d string) string {
		bind(t, mkdir(t, d, "a"), mkdir(t, d, "b"))
		must(t, os.Symlink(d+"/b", d+"/l"))
		return d + "/l/"
	}, false},
	{"below a symlinked parent", func(t *testing.T, d string) string {
		bind(t, mkdir(t, d, "a"), mkdir(t, d, "p/b"))
		must(t, os.Symlink(d+"/p", d+"/l"))
		return d + "/l/b"
	}, true},
	{"hidden under an over-mounted parent", func(t *testing.T, d string) string {
		bind(t, mkdir(t, d, "a"), mkdir(t, d, "p/b"))
		mkdir(t, d, "other/b")
		bind(t, d+"/other", d+"/p")
		return d + "/p/b"
	}, false},
	{"space", named("x y"), true},
	{"newline", named("x\ny"), true},
	{"backslash", named(`x\040#`), true},
	{"dead FUSE", func(t *testing.T, d string) string {
		deadFUSE(t, mkdir(t, d, "b"))
		return d + "/b"
	}, true},
	{"hung FUSE", func(t *testing.T, d string) string {
		hungFUSE(t, mkdir(t, d, "b"), 0)
		return d + "/b"
	}, true},
	{"FUSE of another user", func(t *testing.T, d string) string {
		hungFUSE(t, mkdir(t, d, "b"), 1000)
		return d + "/b"
	}, true},
	{"root", func(*testing.T, string) string { return "/" }, true},
	{"plain directory", func(t *testing.T, d string) string { return mkdir(t, d, "a") }, false},
	{"regular file", func(t *testing.T, d string) string { return mkfile(t, d, "a") }, false},
	{"below a mount point", func(t *testing.T, d string) string {
		mkdir(t, d, "a/c")
		bind(t, d+"/a", mkdir(t, d, "b"))
		return d + "/b/c"
	}, false},
}

// named makes a mount point of that name.
func named(name string) func(*testing.T, string) string {
	return func(t *testing.T, d string) string {
		bind(t, mkdir(t, d, "a"), mkdir(t, d, name))
		return d + "/" + name
	}
}

// TestIsMountPoint asks about each scenario in each way that a kernel may have.
func TestIsMountPoint(t *testing.T) {
	testenv.Root(t)
	ways := []struct {
		name string
		hide mountapi.Part
	}{
		{"statx", mountapi.None},
		{"openat2", mountapi.MountRoot},
		{"mount ids", mountapi.MountRoot | mountapi.Openat2},
	}
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Cleanup(mountapi.Hide(w.hide))
			for _, s := range pointScenarios {
				t.Run(s.name, func(t *testing.T) { checkPoint(t, s.make(t, tempDir(t)), s.want) })
			}
			t.Run("missing", func(t *testing.T) {
				for _, p := range []string{"/missing", "/missing/too"} {
					if is, err := mnt.IsMountPoint(tempDir(t) + p); is || !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("IsMountPoint(missing) = %v, %v", is, err)
					}
				}
			})
		})
	}
}

// checkPoint compares IsMountPoint, and At with it.
func checkPoint(t *testing.T, path string, want bool) {
	t.Helper()
	if got := isMount(t, path); got != want {
		t.Errorf("IsMountPoint(%q) = %v, want %v", path, got, want)
	}
	stack, err := mnt.At(path)
	must(t, err)
	if got := len(stack) > 0; got != want {
		t.Errorf("At(%q) has %d mounts, want any: %v", path, len(stack), want)
	}
}

func TestPathsRefused(t *testing.T) {
	for _, p := range []string{"", "a", "./a", "a\x00b", "/a\x00b", "/a/.", "/a/..", "/a/../"} {
		errs := map[string]error{}
		_, errs["IsMountPoint"] = mnt.IsMountPoint(p)
		_, errs["ID"] = mnt.ID(p)
		_, errs["At"] = mnt.At(p)
		_, errs["Propagation"] = mnt.Propagation(p)
		_, errs["Unmount"] = mnt.Unmount(p)
		_, errs["Detach"] = mnt.Detach(p)
		_, errs["Unwind"] = mnt.Unwind(p)
		errs["Mount"] = mnt.Mount("none", "tmpfs", p, mnt.Options{})
		errs["Bind source"] = mnt.Bind(p, "/missing", mnt.BindOptions{})
		errs["Bind target"] = mnt.Bind("/", p, mnt.BindOptions{})
		errs["SetReadOnly"] = mnt.SetReadOnly(p, true)
		for name, err := range errs {
			if !errors.Is(err, backends.ErrInvalid) {
				t.Errorf("%s(%q): %v, want ErrInvalid", name, p, err)
			}
		}
	}
}

func TestID(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		outside, err := mnt.ID(mkdir(t, d, "a"))
		must(t, err)
		bind(t, d+"/a", mkdir(t, d, "b"))
		inside, err := mnt.ID(d + "/b")
		must(t, err)
		if inside == outside {
			t.Errorf("the same id %d on both sides of a mount point", inside)
		}
		file, err := mnt.ID(mkfile(t, d, "b/file"))
		must(t, err)
		if file != inside {
			t.Errorf("id of a file is %d, its mount's %d", file, inside)
		}
		if _, err := mnt.ID(d + "/missing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ID(missing): %v", err)
		}
	})
}

// On kernels that have them, ids are not used again.
func TestIDIsUnique(t *testing.T) {
	testenv.Root(t)
	var st unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, "/", 0, unix.STATX_MNT_ID_UNIQUE, &st))
	if st.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		t.Skip("missing: Linux 6.8")
	}
	d := tempDir(t)
	p := mkdir(t, d, "a")
	seen := map[uint64]bool{}
	for range 3 {
		bind(t, p, p)
		id, err := mnt.ID(p)
		must(t, err)
		if seen[id] {
			t.Fatalf("id %d used again", id)
		}
		seen[id] = true
		must(t, unix.Unmount(p, 0))
	}
}

func TestAtStack(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		p := mkdir(t, d, "p")
		for _, name := range []string{"1", "2", "3"} {
			bind(t, mkdir(t, d, name), p)
		}
		stack, err := mnt.At(p)
		must(t, err)
		if len(stack) != 3 {
			t.Fatalf("%d mounts: %+v", len(stack), stack)
		}
		for i, want := range []string{"/3", "/2", "/1"} {
			if stack[i].Root != want || stack[i].Point != p {
				t.Errorf("stack[%d] = %s on %s, want %s on %s", i, stack[i].Root, stack[i].Point, want, p)
			}
		}
		of, err := mnt.OfDevice(stack[0].Dev)
		must(t, err)
		if len(of) != 4 { // and the tmpfs itself
			t.Errorf("OfDevice has %d mounts, want 4", len(of))
		}
	})
}

func TestListDecodes(t *testing.T) {
	testenv.Root(t)
	d := tempDir(t)
	p := mkdir(t, d, "a b\tc\nd\\e\\040f#")
	must(t, mnt.Mount("so urce\\", "tmpfs", p, mnt.Options{Data: "size=64k"}))
	list, err := mnt.List()
	must(t, err)
	for _, i := range list {
		if i.Point == p {
			if i.Source != "so urce\\" || i.FSType != "tmpfs" || i.Root != "/" || !slices.Contains(i.Super, "size=64k") {
				t.Errorf("%+v", i)
			}
			return
		}
	}
	t.Fatalf("%q is not in the list, %q", p, filepath.Base(p))
}
