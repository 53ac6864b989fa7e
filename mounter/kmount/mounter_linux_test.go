package kmount_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/kmount"
)

// TestMountPointScenarios are those in which one check or another of mount-utils
// and of moby answers wrongly.
func TestMountPointScenarios(t *testing.T) {
	bind := func(t *testing.T, src, dst string) { must(t, unix.Mount(src, dst, "", unix.MS_BIND, "")) }
	named := func(name string) func(t *testing.T, d string) string {
		return func(t *testing.T, d string) string {
			p := mkdir(t, d, name)
			bind(t, mkdir(t, d, "src"), p)
			return p
		}
	}
	scenarios := []struct {
		name string
		is   bool
		make func(t *testing.T, d string) string
	}{
		{"bind on one file system", true, named("dst")},
		{"file on file", true, func(t *testing.T, d string) string {
			p := mkfile(t, d, "dst")
			bind(t, mkfile(t, d, "src"), p)
			return p
		}},
		{"deleted source", true, func(t *testing.T, d string) string {
			p := mkdir(t, d, "dst")
			bind(t, mkdir(t, d, "src"), p)
			must(t, os.Remove(filepath.Join(d, "src")))
			return p
		}},
		{"stacked", true, func(t *testing.T, d string) string {
			p := named("dst")(t, d)
			bind(t, filepath.Join(d, "src"), p)
			return p
		}},
		{"renamed parent", true, func(t *testing.T, d string) string {
			bind(t, mkdir(t, d, "src"), mkdir(t, d, "before/dst"))
			must(t, os.Rename(filepath.Join(d, "before"), filepath.Join(d, "after")))
			return filepath.Join(d, "after/dst")
		}},
		{"trailing slash", true, func(t *testing.T, d string) string { return named("dst")(t, d) + "/" }},
		{"symbolic link to a mount point", true, func(t *testing.T, d string) string {
			must(t, os.Symlink(named("dst")(t, d), filepath.Join(d, "link")))
			return filepath.Join(d, "link")
		}},
		{"below a symbolic link", true, func(t *testing.T, d string) string {
			named("dst")(t, d)
			must(t, os.Symlink(d, filepath.Join(d, "link")))
			return filepath.Join(d, "link/dst")
		}},
		{"hidden by a mount on the parent", false, func(t *testing.T, d string) string {
			bind(t, mkdir(t, d, "src"), mkdir(t, d, "parent/dst"))
			mkdir(t, d, "top/dst")
			bind(t, filepath.Join(d, "top"), filepath.Join(d, "parent"))
			return filepath.Join(d, "parent/dst")
		}},
		{"space", true, named("a b")},
		{"newline", true, named("a\nb")},
		{"backslash", true, named(`a\b`)},
		{"dead server", true, func(t *testing.T, d string) string {
			p := mkdir(t, d, "dst")
			deadFUSE(t, p)
			return p
		}},
		{"root", true, func(*testing.T, string) string { return "/" }},
		{"directory", false, func(t *testing.T, d string) string { return mkdir(t, d, "dst") }},
	}
	onKernels(t, func(t *testing.T) {
		for _, s := range scenarios {
			t.Run(s.name, func(t *testing.T) {
				path, m := s.make(t, tempDir(t)), newMounter(t, nil)
				if not, err := m.IsLikelyNotMountPoint(path); not == s.is || err != nil {
					t.Errorf("IsLikelyNotMountPoint(%q) = %v, %v", path, not, err)
				}
				if is, err := m.IsMountPoint(path); is != s.is || err != nil {
					t.Errorf("IsMountPoint(%q) = %v, %v", path, is, err)
				}
			})
		}
	})
}

func TestLookAtNothing(t *testing.T) {
	m := newMounter(t, nil)
	none := filepath.Join(t.TempDir(), "none")
	if not, err := m.IsLikelyNotMountPoint(none); !not || !os.IsNotExist(err) {
		t.Errorf("IsLikelyNotMountPoint = %v, %v", not, err)
	}
	if is, err := m.IsMountPoint(none); is || err != fs.ErrNotExist {
		t.Errorf("IsMountPoint = %v, %v", is, err)
	}
	for _, bad := range []string{"", "a\x00b"} {
		if not, err := m.IsLikelyNotMountPoint(bad); !not || !errors.Is(err, backends.ErrInvalid) {
			t.Errorf("%q: %v, %v", bad, not, err)
		}
	}
}

// TestRefused: what is not followed is refused, and nothing is mounted.
func TestRefused(t *testing.T) {
	testenv.Root(t)
	d := tempDir(t)
	src, dst, image := mkdir(t, d, "src"), mkdir(t, d, "dst"), mkfile(t, d, "image")
	for _, c := range []struct {
		source, fstype string
		options, flags []string
	}{
		{src, "", []string{"rbind"}, nil},
		{src, "", []string{"bind", "rshared"}, nil},
		{src, "", []string{"move"}, nil},
		{image, "ext4", []string{"loop"}, nil},
		{image, "ext4", []string{"loop=/dev/loop7"}, nil},
		{image, "", nil, nil},
		{"tmpfs", "tmpfs", []string{"user"}, nil},
		{"tmpfs", "tmpfs", []string{"X-mount.mkdir"}, nil},
		{"tmpfs", "tmpfs", []string{"helper=x"}, nil},
		{"tmpfs", "tmpfs", []string{`context="a`}, nil},
		{"tmpfs", "tmpfs", []string{"size=1m\x00"}, nil},
		{"tmpfs", "tmpfs", nil, []string{"--make-rshared"}},
		{"tmpfs", "tmpfs", nil, []string{"-o", "ro"}},
	} {
		err := newMounter(t, nil).MountSensitiveWithoutSystemdWithMountFlags(c.source, dst, c.fstype, c.options, nil, c.flags)
		if !errors.Is(err, backends.ErrInvalid) {
			t.Errorf("%v %v: %v", c.options, c.flags, err)
		}
		if n := stack(t, dst); n != 0 {
			t.Fatalf("%v %v: %d mounts", c.options, c.flags, n)
		}
	}
}

// TestSame: with Options.Same a mount that is there is not made again; another one
// is.
func TestSame(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		l := newLoops(t) // goes last
		d := tempDir(t)
		src, dst, sub := mkdir(t, d, "src"), mkdir(t, d, "dst"), mkdir(t, d, "src/sub")
		m := newMounter(t, &kmount.Options{Same: true})
		for i, c := range []struct {
			source  string
			options []string
			want    int
		}{
			{src, []string{"bind"}, 1},
			{src, []string{"bind"}, 1},
			{src, []string{"bind", "ro"}, 2},
			{src, []string{"bind", "ro"}, 2},
			{sub, []string{"bind", "ro"}, 3},
			{sub, []string{"bind", "ro"}, 3},
		} {
			must(t, m.Mount(c.source, dst, "", c.options))
			if n := stack(t, dst); n != c.want {
				t.Errorf("%d: %d mounts, want %d", i, n, c.want)
			}
		}
		disk := l.device("disk", 32*mib)
		run(t, "mkfs.ext4", "-q", "-F", disk)
		other := mkdir(t, d, "other")
		for range 2 {
			must(t, m.Mount(disk, other, "ext4", nil))
		}
		if n := stack(t, other); n != 1 {
			t.Errorf("device: %d mounts", n)
		}
		must(t, m.Mount(src, src, "", []string{"bind"})) // makes a mount point of a directory
		if n := stack(t, src); n != 1 {
			t.Errorf("on itself: %d mounts", n)
		}
	})
}

// TestIgnoredOptionsAreLogged: an option that has no effect is not dropped silently.
func TestIgnoredOptionsAreLogged(t *testing.T) {
	testenv.Root(t)
	d := tempDir(t)
	var log bytes.Buffer
	m := newMounter(t, &kmount.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	dst := mkdir(t, d, "dst")
	must(t, m.MountSensitive(mkdir(t, d, "src"), dst, "", []string{"bind", "discard", "noexec"}, []string{"key=hunter2"}))
	if s := log.String(); !strings.Contains(s, "discard") || strings.Contains(s, "noexec") || strings.Contains(s, "hunter2") || strings.Contains(s, "key") {
		t.Error(s)
	}
}

// TestSecrets: sensitive options get to a helper by file, or not at all, and into no
// error.
func TestSecrets(t *testing.T) {
	testenv.Root(t)
	d := tempDir(t)
	dst, seen := mkdir(t, d, "dst"), filepath.Join(d, "seen")
	// The helpers are looked for in the directories of the system; these types have
	// none of their own here.
	script := "#!/bin/sh\nfor a; do echo \"$a\"; done >" + seen + "\necho \"$*\" | tr ' ,' '\\n\\n' | sed -n 's/^\\(credentials\\|secretfile\\)=//p' | while read f; do cat $f; done >>" + seen + "\nexit 1\n"
	helper := func(fstype string) {
		p := "/sbin/mount." + fstype
		if _, err := os.Lstat(p); err == nil {
			t.Skip("present: ", p)
		}
		must(t, os.WriteFile(p, []byte(script), 0o755))
		t.Cleanup(func() { must(t, os.Remove(p)) })
	}
	helper("cifs")
	helper("csikittest")
	m := newMounter(t, nil)
	err := m.MountSensitive("//server/share", dst, "cifs", []string{"vers=3.0"}, []string{"username=me,password=hunter2", "ro", "x-token=hunter2,comment=hunter2"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("cifs: %v", err)
	}
	b, err := os.ReadFile(seen)
	must(t, err)
	argv, file, _ := strings.Cut(string(b), "username=me\n")
	if strings.Contains(argv, "hunter2") || !strings.Contains(argv, "vers=3.0,ro,credentials=") || file != "password=hunter2\n" {
		t.Errorf("the helper got %q", b)
	}
	must(t, os.Remove(seen))
	for _, secret := range []string{"token=hunter2", "hunter2"} {
		err = m.MountSensitive("server:/x", dst, "csikittest", nil, []string{secret})
		if !errors.Is(err, backends.ErrInvalid) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", secret, err)
		}
	}
	if _, err := os.Lstat(seen); err == nil {
		t.Error("the helper was run with a secret")
	}
	for _, secret := range []string{"size=hunter2", "hunter2", "hunter2=1"} {
		if err := m.MountSensitive("tmpfs", dst, "tmpfs", nil, []string{secret}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("kernel: %v", err)
		}
	}
}

// TestCleanup: the functions of mount-utils that take a mounter work with this one.
func TestCleanup(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d, m := tempDir(t), newMounter(t, nil)
		src, dst, dead, plain := mkdir(t, d, "src"), mkdir(t, d, "dst"), mkdir(t, d, "dead"), mkdir(t, d, "plain")
		must(t, m.Mount(src, dst, "", []string{"bind"}))
		deadFUSE(t, dead)
		for _, p := range []string{dst, dead, plain, filepath.Join(d, "none")} {
			must(t, mount.CleanupMountPoint(p, m, true))
			if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", p, err)
			}
		}
		must(t, os.Mkdir(dst, 0o700))
		must(t, m.Mount(src, dst, "", []string{"bind"}))
		name, refs, err := mount.GetDeviceNameFromMount(m, dst)
		if name != "tmpfs" || refs == 0 || err != nil {
			t.Error(name, refs, err)
		}
		must(t, mount.CleanupMountWithForce(dst, m, true, time.Minute))
	})
}
