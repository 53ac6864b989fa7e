package tree

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

func run(t testing.TB, argv ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// TestCopyAgainOfWhatChanged: a file of the old size, time, mode and owner is not whole
// if its content or its access list was changed meanwhile.
func TestCopyAgainOfWhatChanged(t *testing.T) {
	testenv.Root(t)
	for name, change := range map[string]func(p string){
		"content": func(p string) { write(t, p, strings.Repeat("y", durable)) },
		"access list": func(p string) {
			must(t, unix.Setxattr(p, accessACL, accessList(1, 6, -1, 2, 0, 4321, 4, 4, -1, 0x10, 6, -1, 0x20, 0, -1), 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dst, src, links := roots(t)
			for _, n := range []string{"one", "linked"} {
				p := filepath.Join(src.Name(), n)
				write(t, p, strings.Repeat("x", durable))
				must(t, unix.Setxattr(p, accessACL, accessList(1, 6, -1, 2, 6, 4321, 4, 4, -1, 0x10, 6, -1, 0x20, 0, -1), 0))
			}
			must(t, os.Link(filepath.Join(src.Name(), "linked"), filepath.Join(src.Name(), "second")))
			_, err := Copy(t.Context(), dst, src, links, CopyOptions{})
			must(t, err)
			for _, n := range []string{"one", "linked"} {
				p := filepath.Join(src.Name(), n)
				change(p)
				sameTimes(t, p, filepath.Join(dst.Name(), n))
			}
			done := copied(t, dst, src, links, CopyOptions{})
			if done.Kept != 0 {
				t.Errorf("%d files kept", done.Kept)
			}
		})
	}
}

// TestCopyAgainOfOtherDirectory: a file of the old name, size, time, mode and owner is
// another one, and was not changed, where its directory was replaced.
func TestCopyAgainOfOtherDirectory(t *testing.T) {
	dst, src, links := roots(t)
	one, two := filepath.Join(src.Name(), "one"), filepath.Join(src.Name(), "two")
	write(t, one+"/file", strings.Repeat("1", durable))
	write(t, two+"/file", strings.Repeat("2", durable))
	sameTimes(t, two+"/file", one+"/file")
	_, err := Copy(t.Context(), dst, src, links, CopyOptions{})
	must(t, err)
	must(t, os.RemoveAll(one))
	must(t, os.Rename(two, one))
	done := copied(t, dst, src, links, CopyOptions{})
	if done.Kept != 1 {
		t.Errorf("%d files kept", done.Kept)
	}
}

// TestCopyAgainLeavesNothing: a directory that the source has no more is not in the copy,
// however deep it is, and a file of the copy is not taken for a part of it.
func TestCopyAgainLeavesNothing(t *testing.T) {
	dst, src, links := roots(t)
	write(t, filepath.Join(src.Name(), ".deep.1/file"), "of the source")
	for _, n := range []string{"old", "older"} {
		write(t, filepath.Join(dst.Name(), n, strings.Repeat("d/", maxOpen+20), "file"), "what was deleted")
	}
	_, err := Copy(t.Context(), dst, src, links, CopyOptions{})
	must(t, err)
	if names, err := links.Names("."); err != nil || len(names) > 0 {
		t.Errorf("%q is left, %v", names, err)
	}
	same(t, dst.Name(), src.Name())
}

// TestFailedCopyStaysShut: a directory whose walk failed lacks files, also one that an
// earlier copy had completed.
func TestFailedCopyStaysShut(t *testing.T) {
	testenv.Root(t)
	dst, src, links := roots(t)
	for _, dir := range []string{"early", "late"} {
		mnt := filepath.Join(src.Name(), dir, "mnt")
		must(t, os.Mkdir(filepath.Dir(mnt), 0o755))
		if dir == "late" {
			_, err := Copy(t.Context(), dst, src, links, CopyOptions{})
			must(t, err)
		}
		must(t, os.Mkdir(mnt, 0o755))
		must(t, unix.Mount("none", mnt, "tmpfs", 0, ""))
		_, err := Copy(t.Context(), dst, src, links, CopyOptions{})
		must(t, unix.Unmount(mnt, 0))
		must(t, os.Remove(mnt))
		if !errors.Is(err, ErrMount) {
			t.Fatal(err)
		}
		must(t, os.Mkdir(mnt, 0o755))
		shut(t, dst.Name(), src.Name())
		must(t, os.Remove(mnt))
	}
}

// TestCopyAgainOfOtherKinds: what was a file, a directory, a symbolic link or a fifo at
// the last attempt is made what it is now, under names of every length; what a link of an
// earlier attempt points to is not touched.
func TestCopyAgainOfOtherKinds(t *testing.T) {
	dst, src, links := roots(t)
	out := t.TempDir()
	write(t, filepath.Join(out, "in/file"), "elsewhere")
	for _, f := range []func(p string){
		func(p string) { write(t, p, "file") },
		func(p string) { write(t, p+"/in/file", "x"); must(t, os.Chmod(p, 0o751|os.ModeSetgid)) },
		func(p string) { must(t, os.Symlink(out, p)) },
		func(p string) { write(t, p+"/in/file", "x"); must(t, os.Chmod(p, 0o700|os.ModeSticky)) },
		func(p string) { must(t, unix.Mkfifo(p, 0o644)) },
		func(p string) { write(t, p, strings.Repeat("q", durable)) },
		func(p string) { must(t, os.Symlink(out, p)) },
	} {
		for _, n := range []string{"x", strings.Repeat("n", 255)} {
			must(t, os.RemoveAll(filepath.Join(src.Name(), n)))
			f(filepath.Join(src.Name(), n))
		}
		copied(t, dst, src, links, CopyOptions{})
		if b, err := os.ReadFile(filepath.Join(out, "in/file")); err != nil || string(b) != "elsewhere" {
			t.Fatalf("%q, %v", b, err)
		}
	}
}
