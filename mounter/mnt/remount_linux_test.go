package mnt_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestRemount: what the flags name is changed, and nothing else.
func TestRemount(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		src, dst := mkdir(t, d, "src"), mkdir(t, d, "dst")
		must(t, unix.Mount("tmpfs", src, "tmpfs", unix.MS_NOSUID|unix.MS_SYNCHRONOUS, "size=1m"))
		bind(t, src, dst)
		for _, c := range []struct {
			path    string
			bind    bool
			flags   []string
			want    error
			options []string // of dst
			super   []string
		}{
			{dst, true, []string{"ro,noexec"}, nil, []string{"ro", "nosuid", "noexec", "relatime"}, []string{"rw", "sync", "size=1024k"}},
			{dst, true, []string{"exec"}, nil, []string{"ro", "nosuid", "relatime"}, []string{"rw", "sync", "size=1024k"}},
			{dst, true, []string{"size=2m"}, backends.ErrInvalid, nil, nil},
			{dst, true, []string{"sync"}, backends.ErrInvalid, nil, nil},
			{dst, false, []string{"size=2m"}, backends.ErrPrecondition, nil, nil},
			{dst, false, []string{"rw", "size=2m", "noatime"}, nil, []string{"rw", "nosuid", "noatime"}, []string{"rw", "sync", "size=2048k"}},
			{src, false, []string{"ro,async"}, nil, []string{"rw", "nosuid", "noatime"}, []string{"ro", "size=2048k"}},
			{dst, true, []string{"noexec"}, nil, []string{"rw", "nosuid", "noexec", "noatime"}, []string{"ro"}},
			{dst, true, []string{"remount"}, backends.ErrInvalid, nil, nil},
			{d + "/none", true, []string{"ro"}, os.ErrNotExist, nil, nil},
			{mkdir(t, d, "plain"), true, []string{"ro"}, unix.EINVAL, nil, nil},
		} {
			if err := mnt.Remount(c.path, c.bind, c.flags); !errors.Is(err, c.want) {
				t.Errorf("%v: %v", c.flags, err)
			}
			at, err := mnt.At(dst)
			must(t, err)
			if len(at) != 1 || c.options != nil && (!slices.Equal(at[0].Options, c.options) || !containsAll(at[0].Super, c.super)) {
				t.Errorf("%v: %v %v", c.flags, at[0].Options, at[0].Super)
			}
		}
	})
}

func containsAll(list, words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(list, w) })
}

func TestSplitOptions(t *testing.T) {
	got, err := mnt.SplitOptions([]string{"ro,,noexec", `context="a,b",x=1`, ""})
	if want := []string{"ro", "noexec", `context="a,b"`, "x=1"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := mnt.SplitOptions([]string{`context="a`}); !errors.Is(err, backends.ErrInvalid) {
		t.Error(err)
	}
}
