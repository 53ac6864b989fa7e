package mnt_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/internal/mountapi"
	"github.com/csikit/csikit/mounter/mnt"
)

func top(t testing.TB, path string) mnt.Info {
	t.Helper()
	stack, err := mnt.At(path)
	must(t, err)
	if len(stack) == 0 {
		t.Fatalf("nothing mounted at %s", path)
	}
	return stack[0]
}

func TestBind(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		mkfile(t, mkdir(t, d, "src"), "f")
		tests := []struct {
			name, source, target, see string
		}{
			{"directory", d + "/src", mkdir(t, d, "dir"), "/f"},
			{"file", d + "/src/f", mkfile(t, d, "file"), ""},
			{"trailing slashes", d + "/src//", mkdir(t, d, "slash") + "/", "f"},
			{"strange name", d + "/src", mkdir(t, d, "a b\n\\040"), "/f"},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				must(t, mnt.Bind(tt.source, tt.target, mnt.BindOptions{}))
				if b, err := os.ReadFile(tt.target + tt.see); err != nil || string(b) != "f" {
					t.Errorf("read through the bind: %q, %v", b, err)
				}
				if i := top(t, tt.target); i.Shared || i.ReadOnly() {
					t.Errorf("%+v", i)
				}
				if n, err := mnt.Unwind(tt.target); n != 1 || err != nil {
					t.Errorf("Unwind: %d, %v", n, err)
				}
			})
		}
	})
}

func TestBindReadOnly(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		src := mkdir(t, d, "src")
		must(t, unix.Mount("none", src, "tmpfs", unix.MS_NODEV|unix.MS_NOATIME, ""))
		mkfile(t, src, "f")
		p := mkdir(t, d, "p")
		must(t, mnt.Bind(src, p, mnt.BindOptions{ReadOnly: true, Attr: mnt.AttrNoExec}))
		if err := os.WriteFile(p+"/f", nil, 0); !errors.Is(err, unix.EROFS) {
			t.Errorf("write below a read-only bind: %v", err)
		}
		must(t, os.WriteFile(src+"/f", nil, 0o600))
		for _, w := range []string{"ro", "noexec", "nodev", "noatime"} {
			if i := top(t, p); !slices.Contains(i.Options, w) {
				t.Errorf("no %s in %v", w, i.Options)
			}
		}
		must(t, mnt.SetReadOnly(p, false))
		must(t, os.WriteFile(p+"/f", nil, 0o600))
		must(t, mnt.SetReadOnly(p, true))
		if err := os.WriteFile(p+"/f", nil, 0); !errors.Is(err, unix.EROFS) {
			t.Errorf("write after SetReadOnly: %v", err)
		}
		if i := top(t, p); !slices.Contains(i.Options, "noexec") || !slices.Contains(i.Options, "noatime") {
			t.Errorf("SetReadOnly changed other attributes: %v", i.Options)
		}
	})
}

func TestBindAtime(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		src := mkdir(t, d, "src")
		must(t, unix.Mount("none", src, "tmpfs", unix.MS_NOATIME, ""))
		p := mkdir(t, d, "p")
		must(t, mnt.Bind(src, p, mnt.BindOptions{Attr: mnt.AttrStrictAtime}))
		if o := top(t, p).Options; slices.Contains(o, "noatime") || slices.Contains(o, "relatime") {
			t.Errorf("strictatime: %v", o)
		}
	})
}

func TestBindIsNotRecursive(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		mkdir(t, d, "src/sub")
		bind(t, mkdir(t, d, "other"), d+"/src/sub")
		must(t, mnt.Bind(d+"/src", mkdir(t, d, "p"), mnt.BindOptions{}))
		if isMount(t, d+"/p/sub") {
			t.Error("the mount below the source came along")
		}
	})
}

// A bind below a shared mount, of a shared source, is private itself.
func TestBindIsPrivate(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		must(t, unix.Mount("", d, "", unix.MS_SHARED, ""))
		src, p := mkdir(t, d, "src"), mkdir(t, d, "p")
		bind(t, src, src)
		if !top(t, src).Shared {
			t.Fatal("the source is not shared")
		}
		must(t, mnt.Bind(src, p, mnt.BindOptions{}))
		if shared, err := mnt.Propagation(p); err != nil || shared {
			t.Errorf("Propagation = %v, %v", shared, err)
		}
		if shared, err := mnt.Propagation(d); err != nil || !shared {
			t.Errorf("Propagation of the parent = %v, %v", shared, err)
		}
	})
}

// The copies that a bind makes below the peers of a shared mount are read-only
// too, or the bind is refused. With mount(2) they are not: see the control.
func TestReadOnlyReachesPeers(t *testing.T) {
	for _, k := range kernels {
		t.Run(k.Name, func(t *testing.T) {
			testenv.Root(t)
			t.Cleanup(mountapi.Hide(k.Hide))
			d := tempDir(t)
			src, shared, peer := mkdir(t, d, "src"), mkdir(t, d, "shared"), mkdir(t, d, "peer")
			must(t, unix.Mount("none", shared, "tmpfs", 0, ""))
			must(t, unix.Mount("", shared, "", unix.MS_SHARED, ""))
			bind(t, shared, peer)
			p := mkdir(t, shared, "p")
			err := mnt.Bind(src, p, mnt.BindOptions{ReadOnly: true})
			if k.Hide&mountapi.Tree != 0 {
				if !errors.Is(err, backends.ErrPrecondition) || isMount(t, p) {
					t.Fatalf("Bind: %v; mounted: %v", err, isMount(t, p))
				}
				bind(t, src, p)
				must(t, unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
				if top(t, peer+"/p").ReadOnly() {
					t.Error("control: a remount reaches the copies; the refusal is not needed")
				}
				return
			}
			must(t, err)
			if !top(t, peer+"/p").ReadOnly() {
				t.Error("the copy is writable")
			}
			if was, err := mnt.Unmount(p); !was || err != nil {
				t.Fatal(was, err)
			}
			if isMount(t, peer+"/p") {
				t.Error("the copy is left after the unmount")
			}
		})
	}
}

func TestBindRefuses(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		dir, other, file := mkdir(t, d, "dir"), mkdir(t, d, "other"), mkfile(t, d, "file")
		dirLink, fileLink, p := d+"/dl", d+"/fl", mkfile(t, d, "p")
		must(t, os.Symlink(dir, dirLink))
		must(t, os.Symlink(file, fileLink))
		tests := []struct {
			name, source, target string
			want                 error
		}{
			{"source is a link to a directory", dirLink, other, backends.ErrPrecondition},
			{"source is a link to a file", fileLink, p, backends.ErrPrecondition},
			{"link on link", fileLink, dirLink, backends.ErrPrecondition},
			{"target is a link to a directory", other, dirLink, backends.ErrPrecondition},
			{"target is a link with a slash", other, dirLink + "/", backends.ErrPrecondition},
			{"target is a link to a file", p, fileLink, backends.ErrPrecondition},
			{"directory on file", dir, file, backends.ErrPrecondition},
			{"file on directory", file, dir, backends.ErrPrecondition},
			{"no source", d + "/missing", dir, os.ErrNotExist},
			{"no target", dir, d + "/missing", os.ErrNotExist},
		}
		before, err := mnt.List()
		must(t, err)
		for _, tt := range tests {
			if err := mnt.Bind(tt.source, tt.target, mnt.BindOptions{}); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		}
		after, err := mnt.List()
		must(t, err)
		if len(after) != len(before) {
			t.Errorf("%d mounts before, %d after", len(before), len(after))
		}
	})
}

func TestBindFD(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		src := mkfile(t, d, "src")
		f, err := os.Open(src)
		must(t, err)
		defer f.Close()
		// The path leads elsewhere by now; the open file does not.
		must(t, os.Rename(src, d+"/moved"))
		mkfile(t, d, "src.new")
		must(t, os.Rename(d+"/src.new", src))
		p := mkfile(t, d, "p")
		must(t, mnt.BindFD(f, p, mnt.BindOptions{ReadOnly: true}))
		if b, err := os.ReadFile(p); err != nil || string(b) != "src" {
			t.Errorf("read %q, %v", b, err)
		}
		must(t, f.Close())
		if err := mnt.BindFD(f, p, mnt.BindOptions{}); err == nil {
			t.Errorf("BindFD of a closed file: %v", err)
		}
	})
}

// A mount whose server is dead, or answers nothing, can be bound, made read-only
// and unmounted. Where a call asked the server, this test would hang.
func TestBrokenMount(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		dead, hung := mkdir(t, d, "dead"), mkdir(t, d, "hung")
		deadFUSE(t, dead)
		hungFUSE(t, hung, 1000)
		for _, broken := range []string{dead, hung} {
			p := mkdir(t, d, "p")
			must(t, mnt.Bind(broken, p, mnt.BindOptions{ReadOnly: true}))
			must(t, mnt.SetReadOnly(p, false))
			for _, q := range []string{p, broken} {
				if n, err := mnt.Unwind(q); n != 1 || err != nil {
					t.Errorf("Unwind(%s) = %d, %v", q, n, err)
				}
			}
		}
	})
}

// SetReadOnly keeps strictatime, which is what no word in mountinfo says.
func TestSetReadOnlyKeepsStrictAtime(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		p := mkdir(t, tempDir(t), "p")
		must(t, unix.Mount("none", p, "tmpfs", unix.MS_STRICTATIME, ""))
		must(t, mnt.SetReadOnly(p, true))
		if o := top(t, p).Options; !slices.Equal(o, []string{"ro"}) {
			t.Errorf("%v", o)
		}
	})
}
