package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

// empty fails the test unless nothing is below the root.
func empty(t *testing.T, r *Root) {
	t.Helper()
	names, err := r.Names(".")
	must(t, err)
	if len(names) > 0 {
		t.Errorf("%q is left", names)
	}
}

func root(t *testing.T, dir string) *Root {
	t.Helper()
	r, err := Open(dir)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// TestClear: everything goes, and what symbolic links point to stays.
func TestClear(t *testing.T) {
	top := t.TempDir()
	victim := filepath.Join(top, "victim")
	write(t, filepath.Join(victim, "precious"), "precious")
	dir := filepath.Join(top, "trash")
	plant(t, mkdir(t, dir), os.Geteuid() == 0)
	must(t, os.Symlink(victim, filepath.Join(dir, "to-victim")))
	must(t, os.Symlink("../victim", filepath.Join(dir, "a/b/to-victim")))
	must(t, os.Chmod(filepath.Join(dir, "a"), 0o000))
	r := root(t, dir)
	done, err := r.Clear(t.Context(), nil)
	must(t, err)
	if done.Removed < 10 {
		t.Errorf("only %d names were removed", done.Removed)
	}
	empty(t, r)
	if _, err := os.Stat(filepath.Join(victim, "precious")); err != nil {
		t.Error(err)
	}
}

func mkdir(t testing.TB, dir string) string {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	return dir
}

// TestClearDeep: a tree that is deeper than paths can be, and than descriptors may be
// open.
func TestClearDeep(t *testing.T) {
	dir := mkdir(t, filepath.Join(t.TempDir(), "trash"))
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	must(t, err)
	name := strings.Repeat("d", 100)
	for range 1500 {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_RDONLY, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	r := root(t, dir)
	_, err = r.Clear(t.Context(), nil)
	must(t, err)
	empty(t, r)
}

// TestClearCut: it may end after any name, and is begun again.
func TestClearCut(t *testing.T) {
	dir := mkdir(t, filepath.Join(t.TempDir(), "trash"))
	for i := range 50 {
		write(t, filepath.Join(dir, fmt.Sprintf("d%d/e/f", i)), "x")
	}
	r := root(t, dir)
	for cut := 1; ; cut += 3 {
		ctx, stop := context.WithCancel(t.Context())
		n := 0
		_, err := r.Clear(ctx, func(string) {
			if n++; n == cut {
				stop()
			}
		})
		stop()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	empty(t, r)
}

// TestClearLeavesMounts: what is mounted inside stays, with everything in it, and is
// named; all else goes.
func TestClearLeavesMounts(t *testing.T) {
	testenv.Root(t)
	top := t.TempDir()
	other := filepath.Join(top, "other")
	write(t, filepath.Join(other, "precious/data"), "precious")
	dir := mkdir(t, filepath.Join(top, "trash"))
	write(t, filepath.Join(dir, "x/gone"), "x")
	at := mkdir(t, filepath.Join(dir, "x/y/mounted"))
	must(t, unix.Mount(other, at, "", unix.MS_BIND, "")) // of the same file system
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	file := filepath.Join(dir, "x/file")
	write(t, file, "")
	must(t, unix.Mount(filepath.Join(other, "precious/data"), file, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(file, unix.MNT_DETACH) })
	done, err := root(t, dir).Clear(t.Context(), nil)
	if err == nil || done.Left == "" {
		t.Errorf("nothing is left: %+v, %v", done, err)
	}
	if b, err := os.ReadFile(filepath.Join(other, "precious/data")); err != nil || string(b) != "precious" {
		t.Errorf("what was mounted: %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "x/gone")); !os.IsNotExist(err) {
		t.Errorf("what is no mount is left: %v", err)
	}
}

// TestClearRaces: somebody exchanges directories for symbolic links, and moves them
// about, while they are removed. Nothing outside goes. He stops now and then: a removal
// goes on for as long as there is something.
func TestClearRaces(t *testing.T) {
	top := t.TempDir()
	victim := filepath.Join(top, "victim")
	for i := range 20 {
		write(t, filepath.Join(victim, fmt.Sprintf("d%d/precious", i)), "precious")
	}
	dir := mkdir(t, filepath.Join(top, "trash"))
	exchange := func(d, up string) {
		_ = os.MkdirAll(filepath.Join(d, "deep"), 0o755)
		_ = os.WriteFile(filepath.Join(d, "deep", "file"), nil, 0o644)
		_ = os.Rename(d, d+".away")
		_ = os.Symlink(victim, d)
		_ = os.Symlink(victim, filepath.Join(d+".away", "link"))
		_ = os.Rename(d+".away", up)
	}
	r := root(t, dir)
	for range 80 {
		var wg sync.WaitGroup
		for w := range 2 {
			wg.Go(func() {
				for i := range 20 {
					exchange(filepath.Join(dir, fmt.Sprintf("w%d-%d", w, i%10), "in"), filepath.Join(dir, fmt.Sprint("up", w)))
				}
			})
		}
		over := make(chan struct{})
		go func() { wg.Wait(); close(over) }()
		for busy := true; busy; {
			_, _ = r.Clear(t.Context(), nil) // something may be left, or new
			select {
			case <-over:
				busy = false
			default:
			}
		}
	}
	_, err := r.Clear(t.Context(), nil)
	must(t, err)
	empty(t, r)
	for i := range 20 {
		if _, err := os.Stat(filepath.Join(victim, fmt.Sprintf("d%d/precious", i))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBeneath: no path leads out of a root.
func TestBeneath(t *testing.T) {
	top := t.TempDir()
	write(t, filepath.Join(top, "outside/file"), "outside")
	dir := mkdir(t, filepath.Join(top, "share"))
	write(t, filepath.Join(dir, "in/file"), "in")
	must(t, os.Symlink("../outside", filepath.Join(dir, "link")))
	must(t, os.Symlink("in", filepath.Join(dir, "inner")))
	r := root(t, dir)
	for _, p := range []string{"..", "../outside", "/", "/etc", "in/../../outside", "link", "inner", "in/..", "link/."} {
		if s, err := r.Sub(p); err == nil && p != "in/.." {
			t.Errorf("Sub(%q) leads to %s", p, s.Name())
		}
	}
	for _, p := range []string{"../outside/file", "link/file", "inner/file", "/etc/passwd"} {
		if b, err := r.ReadFile(p, 1000); err == nil {
			t.Errorf("ReadFile(%q) gives %q", p, b)
		}
		if err := r.Unlink(p); err == nil {
			t.Errorf("Unlink(%q) removed it", p)
		}
		if err := r.Rename("in/file", p); err == nil {
			t.Errorf("Rename to %q", p)
		}
	}
	if err := r.Rename("in", "link"); !errors.Is(err, unix.EEXIST) {
		t.Errorf("Rename over a symbolic link: %v", err)
	}
	must(t, r.Mkdir("empty", 0o755))
	if err := r.Rename("in", "empty"); !errors.Is(err, unix.EEXIST) {
		t.Errorf("Rename over an empty directory: %v", err)
	}
}

// FuzzBeneath: whatever a path is, nothing outside is reached.
func FuzzBeneath(f *testing.F) {
	for _, p := range []string{"../outside", "a/../../outside", "//outside", "./../outside/file", "link", "a\x00b", strings.Repeat("../", 50) + "etc"} {
		f.Add(p)
	}
	top := f.TempDir()
	write(f, filepath.Join(top, "outside/file"), "outside")
	dir := mkdir(f, filepath.Join(top, "share"))
	write(f, filepath.Join(dir, "a/file"), "in")
	must(f, os.Symlink("../outside", filepath.Join(dir, "link")))
	r, err := Open(dir)
	must(f, err)
	before := fmt.Sprint(describe(f, filepath.Join(top, "outside")))
	f.Fuzz(func(t *testing.T, p string) {
		if b, err := r.ReadFile(p, 1000); err == nil && string(b) != "in" {
			t.Errorf("ReadFile(%q) gives %q", p, b)
		}
		_ = r.Rename("a", p)
		_ = r.Rename(p, "a")
		_, _ = r.Rmdir(p), r.Unlink(p)
		if now := fmt.Sprint(describe(t, filepath.Join(top, "outside"))); now != before {
			t.Errorf("%q changed what is outside", p)
		}
	})
}
