package mnt_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

func TestMount(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		p := mkdir(t, d, "p")
		o, err := mnt.ParseOptions([]string{"ro,noexec", "noatime,nosuid,sync", `size=64k,mode="0711"`})
		must(t, err)
		if strings.Contains(t.Name(), "/old") { // quotes are for those who decode them
			o.Data = strings.ReplaceAll(o.Data, `"`, "")
		}
		must(t, mnt.Mount("name", "tmpfs", p+"/", o))
		i := top(t, p)
		for _, w := range []string{"ro", "noexec", "noatime", "nosuid"} {
			if !slices.Contains(i.Options, w) {
				t.Errorf("no %s in %v", w, i.Options)
			}
		}
		for _, w := range []string{"ro", "sync", "size=64k", "mode=711"} {
			if !slices.Contains(i.Super, w) {
				t.Errorf("no %s in %v", w, i.Super)
			}
		}
		if i.Source != "name" || i.FSType != "tmpfs" {
			t.Errorf("%+v", i)
		}
	})
}

// FUSE takes numbers, and a descriptor, as options.
func TestMountFUSE(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		p := mkdir(t, tempDir(t), "p")
		for _, fstype := range []string{"fuse", "fuse.sub"} {
			fd := testenv.FUSE(t, 0)
			data := "fd=" + itoa(fd) + ",rootmode=40000,user_id=0,group_id=0"
			must(t, mnt.Mount("x", fstype, p, mnt.Options{Data: data}))
			if i := top(t, p); i.FSType != fstype {
				t.Errorf("type %s, want %s", i.FSType, fstype)
			}
			must(t, unix.Close(fd))
			if _, err := mnt.Unwind(p); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestMountFails(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		p := mkdir(t, d, "p")
		must(t, os.Symlink(p, d+"/link"))
		tests := []struct {
			name, source, fstype, target, data string
			want                               error
		}{
			{"unknown type", "none", "nosuchfs", p, "", backends.ErrPrecondition},
			{"no type", "none", "", p, "", backends.ErrInvalid},
			{"link", "none", "tmpfs", d + "/link", "", backends.ErrPrecondition},
			{"link and slash", "none", "tmpfs", d + "/link/", "", backends.ErrPrecondition},
			{"no target", "none", "tmpfs", d + "/missing", "", os.ErrNotExist},
			{"directory on file", "none", "tmpfs", mkfile(t, d, "f"), "", backends.ErrPrecondition},
			{"unknown option", "none", "tmpfs", p, "nosuchoption=canary-secret", unix.EINVAL},
			{"bad value", "none", "tmpfs", p, "size=canary-secret", unix.EINVAL},
			{"no device", d + "/missing", "ext4", p, "", os.ErrNotExist},
			{"no block device", d + "/f", "ext4", p, "", unix.ENOTBLK},
			{"NUL", "none", "tmpfs", p, "a=\x00", backends.ErrInvalid},
			{"too long", "none", "tmpfs", p, "a=" + strings.Repeat("x", 4096), backends.ErrInvalid},
		}
		for _, tt := range tests {
			err := mnt.Mount(tt.source, tt.fstype, tt.target, mnt.Options{Data: tt.data})
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), tt.target)) {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if isMount(t, p) {
			t.Error("a failed mount is mounted")
		}
	})
}

func TestMountErrorHasKernelText(t *testing.T) {
	testenv.Root(t)
	p := mkdir(t, tempDir(t), "p")
	err := mnt.Mount("none", "tmpfs", p, mnt.Options{Data: "nosuchoption=1"})
	if !errors.Is(err, backends.ErrInvalid) || !strings.Contains(err.Error(), "Unknown parameter 'nosuchoption'") {
		t.Errorf("%v", err)
	}
}

// Some file systems decode escapes in mount(2)'s string themselves.
func TestMountEscapedData(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		if b, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(b), "\toverlay\n") {
			t.Skip("missing: overlay")
		}
		d := tempDir(t)
		mkfile(t, mkdir(t, d, "a,b"), "f")
		mkdir(t, d, "c")
		p := mkdir(t, d, "p")
		must(t, mnt.Mount("none", "overlay", p, mnt.Options{Data: `lowerdir=` + d + `/a\,b:` + d + `/c`}))
		if _, err := os.Stat(p + "/f"); err != nil {
			t.Error(err)
		}
	})
}
