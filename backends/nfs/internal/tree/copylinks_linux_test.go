package tree

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

// linkedNames makes three names of one file, and says in which order a copy meets them.
func linkedNames(t *testing.T, src *Root) []string {
	t.Helper()
	a := filepath.Join(src.Name(), "a")
	write(t, a, "of all three")
	for _, n := range []string{"b", "c"} {
		must(t, os.Link(a, filepath.Join(src.Name(), n)))
	}
	names, err := src.Names(".")
	must(t, err)
	return names
}

// atFirst is a Step that does something before the first file is copied.
func atFirst(f func()) func(string) {
	return func(string) {
		if f != nil {
			f()
		}
		f = nil
	}
}

// replaced is a Step that renames other to a name of the source before the first file is
// copied, and leaves the directory's times.
func replaced(t *testing.T, src *Root, name, other string) func(string) {
	t.Helper()
	before, err := src.Stat()
	must(t, err)
	return atFirst(func() {
		must(t, os.Rename(other, filepath.Join(src.Name(), name)))
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, src.Name(), []unix.Timespec{before.Atime, before.Mtime}, 0))
	})
}

// TestCopyOfNameThatGoes: a file is lost with its last name alone.
func TestCopyOfNameThatGoes(t *testing.T) {
	dst, src, links := roots(t)
	names := linkedNames(t, src)
	_, err := Copy(t.Context(), dst, src, links, CopyOptions{Workers: 1, Step: atFirst(func() { must(t, src.Unlink(names[0])) })})
	must(t, err)
	for _, n := range names[1:] {
		if b, err := os.ReadFile(filepath.Join(dst.Name(), n)); err != nil || string(b) != "of all three" {
			t.Errorf("%s: %q, %v", n, b, err)
		}
	}
}

// TestCopyOfNameThatIsReplaced: what is renamed to one name of a file is not what its
// other names are of.
func TestCopyOfNameThatIsReplaced(t *testing.T) {
	dst, src, links := roots(t)
	names := linkedNames(t, src)
	other := filepath.Join(filepath.Dir(src.Name()), "other")
	write(t, other, "another file")
	copied(t, dst, src, links, CopyOptions{Workers: 1, Step: replaced(t, src, names[0], other)})
}

// TestCopyOfOtherKindsMeanwhile: what replaces a file, a link or a directory by rename(2)
// is in the copy in its place.
func TestCopyOfOtherKindsMeanwhile(t *testing.T) {
	file := func(p string) { write(t, p, "a file") }
	link := func(p string) { must(t, os.Symlink("nowhere", p)) }
	for name, kinds := range map[string][2]func(string){"file": {file, link}, "link": {link, file}} {
		t.Run(name, func(t *testing.T) {
			dst, src, links := roots(t)
			p, other := filepath.Join(src.Name(), "name"), filepath.Join(filepath.Dir(src.Name()), "other")
			kinds[0](p)
			kinds[1](other)
			copied(t, dst, src, links, CopyOptions{Step: replaced(t, src, "name", other)})
		})
	}
}

// TestCopyOfNamesThatPart: two names of one file that are two files by the next attempt,
// of the same size and time, are two in the copy.
func TestCopyOfNamesThatPart(t *testing.T) {
	dst, src, links := roots(t)
	a, b := filepath.Join(src.Name(), "a"), filepath.Join(src.Name(), "b")
	write(t, a, string(make([]byte, durable)))
	must(t, os.Link(a, b))
	_, err := Copy(t.Context(), dst, src, links, CopyOptions{})
	must(t, err)
	must(t, os.Remove(b))
	write(t, b, string(make([]byte, durable)))
	sameTimes(t, b, a)
	copied(t, dst, src, links, CopyOptions{})
}

func sameTimes(t *testing.T, of, as string) {
	t.Helper()
	i, err := statAt(unix.AT_FDCWD, as)
	must(t, err)
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, of, []unix.Timespec{i.Atime, i.Mtime}, 0))
}

// TestCopyOfSubvolumes: two files with one inode number, of a subvolume and of its
// snapshot, stay two.
func TestCopyOfSubvolumes(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.btrfs", "btrfs", "mount")
	disk, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	must(t, os.WriteFile(disk, nil, 0o600))
	must(t, os.Truncate(disk, 300<<20))
	run(t, "mkfs.btrfs", "-q", disk)
	run(t, "mount", "-o", "loop", disk, dir)
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	dst, src, links := rootsIn(t, dir)
	a, b := filepath.Join(src.Name(), "a"), filepath.Join(src.Name(), "b")
	run(t, "btrfs", "subvolume", "create", a)
	write(t, a+"/f", "one")
	must(t, os.Link(a+"/f", a+"/g"))
	run(t, "btrfs", "subvolume", "snapshot", a, b)
	must(t, os.WriteFile(b+"/f", []byte("two"), 0o600))
	sameTimes(t, b+"/f", a+"/f")
	_, err := Copy(t.Context(), dst, src, links, CopyOptions{})
	must(t, err)
	for p, want := range map[string]string{"a/f": "one", "a/g": "one", "b/f": "two", "b/g": "two"} {
		got, err := os.ReadFile(filepath.Join(dst.Name(), p))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
	wontShareInDoubt(t, src, links)
}

// wontShareInDoubt: blocks are shared at a moment after the file was looked at. Who might
// read it before is not who may read what it holds by then.
func wontShareInDoubt(t *testing.T, src, links *Root) {
	t.Helper()
	p := filepath.Join(src.Name(), "public")
	write(t, p, "public")
	f, err := os.Open(p)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	before, err := statOf(f)
	must(t, err)
	must(t, f.Chmod(0o600))
	c := &copier{links: links.f, o: CopyOptions{Progress: func(string) {}}}
	after, err := c.fileOnce(t.Context(), links.f, "public", f, before)
	must(t, err)
	if c.shared.Load() != 1 || after == before {
		t.Errorf("%d files shared; after its mode was changed: %+v", c.shared.Load(), after)
	}
}
