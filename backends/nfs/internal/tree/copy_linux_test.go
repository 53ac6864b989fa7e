package tree

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

// roots are an empty copy, a source and a place for links.
func roots(t testing.TB) (dst, src, links *Root) {
	t.Helper()
	return rootsIn(t, t.TempDir())
}

func rootsIn(t testing.TB, top string) (dst, src, links *Root) {
	t.Helper()
	for _, r := range []struct {
		name string
		to   **Root
	}{{"dst", &dst}, {"src", &src}, {"links", &links}} {
		must(t, os.Mkdir(filepath.Join(top, r.name), 0o700))
		root, err := Open(filepath.Join(top, r.name))
		must(t, err)
		t.Cleanup(func() {
			_ = root.Close()
			_ = os.Chmod(filepath.Join(top, r.name, "shut"), 0o700) // of plant, if it is there
		})
		*r.to = root
	}
	return dst, src, links
}

// plant makes a tree with one of everything.
func plant(t testing.TB, dir string, asRoot bool) {
	t.Helper()
	at := func(p string) string { return filepath.Join(dir, p) }
	write(t, at("a/b/plain"), "plain")
	write(t, at("empty"), "")
	write(t, at("exec"), "#!/bin/sh\n")
	must(t, os.Chmod(at("exec"), 0o751|os.ModeSetuid))
	write(t, at("shut/in"), "in")
	must(t, os.Chmod(at("shut"), 0o500))
	must(t, os.Link(at("a/b/plain"), at("a/second")))
	must(t, os.Link(at("a/b/plain"), at("third")))
	must(t, os.Symlink("/etc/passwd", at("a/absolute")))
	must(t, os.Symlink("../../..", at("a/b/up")))
	must(t, os.Symlink("nowhere", at("dangling")))
	must(t, unix.Mkfifo(at("fifo"), 0o640))
	must(t, unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0))
	must(t, os.WriteFile(at("name with\nnewline and ä"), []byte("x"), 0o600))
	f, err := os.Create(at("sparse"))
	must(t, err)
	must(t, f.Truncate(64<<20))
	_, err = f.WriteAt(bytes.Repeat([]byte("data"), 1<<18), 32<<20)
	must(t, err)
	must(t, f.Close())
	if asRoot {
		must(t, os.Lchown(at("a/second"), 1234, 2345))
		must(t, os.Lchown(at("a/absolute"), 4321, 5432))
		must(t, os.Lchown(at("a/b"), 77, 88))
		must(t, unix.Mknod(at("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	}
	for _, p := range []string{"a/b/plain", "a", "empty"} {
		if err := unix.Setxattr(at(p), "user.test", []byte("of "+p), 0); err != nil {
			t.Logf("no user attributes on %s: %v", dir, err)
			break
		}
	}
	// rwx for the owner, r-- for user 4321, --- for the group, rw- at most, r-- for others.
	acl := accessList(1, 7, -1, 2, 4, 4321, 4, 0, -1, 0x10, 6, -1, 0x20, 4, -1)
	for p, name := range map[string]string{"a/b/plain": accessACL, "a/b": accessACL, "a": defaultACL, "fifo": accessACL} {
		if err := unix.Setxattr(at(p), name, acl, 0); err != nil {
			t.Logf("no access lists on %s: %v", dir, err)
			break
		}
	}
	long := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	times := []unix.Timespec{unix.NsecToTimespec(long.Add(time.Hour).UnixNano()), unix.NsecToTimespec(long.UnixNano())}
	for _, p := range []string{"a/b/plain", "a/absolute", "fifo", "a/b", "a", "sparse", "shut"} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at(p), times, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// accessList is an access list as the kernel takes it: tag, permissions and ID of each entry.
func accessList(entries ...int32) []byte {
	b := []byte{2, 0, 0, 0}
	for i := 0; i+2 < len(entries); i += 3 {
		b = binary.LittleEndian.AppendUint16(b, uint16(entries[i]))
		b = binary.LittleEndian.AppendUint16(b, uint16(entries[i+1]))
		b = binary.LittleEndian.AppendUint32(b, uint32(entries[i+2]))
	}
	return b
}

// describe is everything of a tree that a copy preserves, a line each.
func describe(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	first := map[uint64]string{} // files of several names
	must(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		i, err := statAt(unix.AT_FDCWD, p)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("mode %o owner %d:%d mtime %v rdev %d", i.Mode, i.UID, i.GID, i.Mtime, i.Rdev)
		if !i.Dir() {
			line += fmt.Sprintf(" size %d nlink %d", i.Size, i.Nlink)
		}
		switch i.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			must(t, err)
			line += " to " + to
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			must(t, err)
			line += fmt.Sprintf(" content %x", hash(b))
			fallthrough
		case unix.S_IFDIR:
			buf := make([]byte, 100)
			if n, err := unix.Lgetxattr(p, "user.test", buf); err == nil {
				line += " attribute " + string(buf[:n])
			}
		}
		for _, name := range []string{accessACL, defaultACL} {
			buf := make([]byte, 200)
			if n, err := unix.Lgetxattr(p, name, buf); err == nil {
				line += fmt.Sprintf(" %s %x", name, buf[:n])
			}
		}
		if !i.Dir() && i.Nlink > 1 {
			if first[i.Ino] == "" {
				first[i.Ino] = rel
			}
			line += " with " + first[i.Ino]
		}
		all[rel] = line
		return nil
	}))
	return all
}

func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

func same(t testing.TB, dst, src string) {
	t.Helper()
	// The last step of a copy: files of several names have one more until then.
	links, err := Open(filepath.Join(filepath.Dir(dst), "links"))
	must(t, err)
	defer links.Close()
	_, err = links.Clear(t.Context(), nil)
	must(t, err)
	want, got := describe(t, src), describe(t, dst)
	for p, line := range want {
		if got[p] != line {
			t.Errorf("%q:\n got %s\nwant %s", p, got[p], line)
		}
	}
	for p := range got {
		if want[p] == "" {
			t.Errorf("%q is in the copy alone", p)
		}
	}
}

// TestCopyKeepsEverything: owner, mode, times, attributes, hard links, holes, symbolic
// links, fifos, sockets and devices.
func TestCopyKeepsEverything(t *testing.T) {
	dst, src, links := roots(t)
	plant(t, src.Name(), os.Geteuid() == 0)
	done := copied(t, dst, src, links, CopyOptions{Still: time.Now()})
	t.Logf("%+v", done)
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(dst.Name(), "sparse"), &st))
	if st.Blocks*512 > 8<<20 {
		t.Errorf("the sparse file takes %d bytes in the copy", st.Blocks*512)
	}
}

// TestCopyResumes: a copy that was cut at any file is made whole by the next one.
func TestCopyResumes(t *testing.T) {
	dst, src, links := roots(t)
	plant(t, src.Name(), os.Geteuid() == 0)
	for cut := 1; ; cut++ {
		ctx, stop := context.WithCancelCause(t.Context())
		n := 0
		cause := errors.New("cut")
		_, err := Copy(ctx, dst, src, links, CopyOptions{Workers: 1, Step: func(string) {
			if n++; n == cut {
				stop(cause)
			}
		}})
		stop(nil)
		if err == nil {
			if cut < 5 {
				t.Fatalf("it was whole after %d files", cut)
			}
			break
		}
		if !errors.Is(err, cause) {
			t.Fatal(err)
		}
		shut(t, dst.Name(), src.Name())
	}
	if done, err := Copy(t.Context(), dst, src, links, CopyOptions{}); err != nil || done.Kept == 0 {
		t.Errorf("again: %+v, %v: want the big file kept", done, err)
	}
	same(t, dst.Name(), src.Name())
}

// copied copies, and the copy is what the source is.
func copied(t testing.TB, dst, src, links *Root, o CopyOptions) Copied {
	t.Helper()
	done, err := Copy(t.Context(), dst, src, links, o)
	must(t, err)
	same(t, dst.Name(), src.Name())
	return done
}

// shut: a directory of the copy in which something is missing yet is nobody else's, and
// gives what is made in it no access list.
func shut(t testing.TB, dst, src string) {
	t.Helper()
	have := describe(t, dst)
	for p := range describe(t, src) {
		line, up := have[p], have[filepath.Dir(p)]
		if line == "" && up != "" && (!strings.HasPrefix(up, "mode 40700 ") || strings.Contains(up, defaultACL)) {
			t.Errorf("%q is missing yet, and its directory is %s", p, up)
		}
	}
}

// TestCopyInheritsNothing: whom the source is shut to, the copy is shut to, whatever the
// directory lists in which it is made; and attributes that an earlier copy gave to a
// directory go when the source has them no more.
func TestCopyInheritsNothing(t *testing.T) {
	testenv.Root(t)
	dst, src, links := roots(t)
	write(t, filepath.Join(src.Name(), "dir/file"), "file")
	must(t, unix.Mkfifo(filepath.Join(src.Name(), "dir/fifo"), 0o640))
	must(t, os.Link(filepath.Join(src.Name(), "dir/file"), filepath.Join(src.Name(), "second")))
	// User 4321 may do everything with what is made there.
	open := accessList(1, 7, -1, 2, 7, 4321, 4, 5, -1, 0x10, 7, -1, 0x20, 5, -1)
	for _, d := range []*Root{dst, links} {
		must(t, unix.Setxattr(d.Name(), defaultACL, open, 0))
	}
	old := filepath.Join(dst.Name(), "dir")
	must(t, os.Mkdir(old, 0o755))
	for _, name := range []string{"user.left", "trusted.left"} {
		must(t, unix.Setxattr(old, name, []byte("by an earlier copy"), 0))
	}
	if line := describe(t, dst.Name())["dir"]; !strings.Contains(line, accessACL) || !strings.Contains(line, defaultACL) {
		t.Fatalf("nothing is inherited here: %s", line)
	}
	copied(t, dst, src, links, CopyOptions{})
	if names, err := unix.Listxattr(old, make([]byte, 100)); err != nil || names != 0 {
		t.Errorf("the directory has attributes of %d bytes that the source has not (%v)", names, err)
	}
}

// TestCopyReplacesWhatIsLeft: what a copy finds at its names and did not make whole is
// made anew, whatever it is, and never followed.
func TestCopyReplacesWhatIsLeft(t *testing.T) {
	dst, src, links := roots(t)
	write(t, filepath.Join(src.Name(), "file"), "file")
	write(t, filepath.Join(src.Name(), "dir/file"), "inner")
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "outside")
	must(t, os.Symlink(outside, filepath.Join(dst.Name(), "file")))
	must(t, os.Symlink(filepath.Dir(outside), filepath.Join(dst.Name(), "dir")))
	copied(t, dst, src, links, CopyOptions{})
	if b, _ := os.ReadFile(outside); string(b) != "outside" {
		t.Errorf("a file outside has become %q", b)
	}
}

// TestCopyOfWhatChanges: Still refuses it, and without it the copy ends.
func TestCopyOfWhatChanges(t *testing.T) {
	dst, src, links := roots(t)
	for i := range 20 {
		write(t, filepath.Join(src.Name(), fmt.Sprint("file", i)), strings.Repeat("x", 1<<16))
	}
	change := func(string) {
		write(t, filepath.Join(src.Name(), "file7"), strings.Repeat("y", rand.IntN(1<<17)))
		write(t, filepath.Join(src.Name(), "new", fmt.Sprint(rand.Int())), "new")
		_ = os.Remove(filepath.Join(src.Name(), "file19"))
	}
	if _, err := Copy(t.Context(), dst, src, links, CopyOptions{Step: change, Still: time.Now()}); !errors.Is(err, ErrChanged) {
		t.Errorf("Still: got %v, want ErrChanged", err)
	}
	if _, err := Copy(t.Context(), dst, src, links, CopyOptions{Step: change}); err != nil {
		t.Errorf("not Still: %v", err)
	}
}

// TestCopyOfWhatIsCutShort ends, wherever the cut is: with what is left of the file, or,
// where nothing may change, without.
func TestCopyOfWhatIsCutShort(t *testing.T) {
	for _, left := range []int64{0, 1000, 1 << 20, 2<<20 + 1} {
		for _, still := range []bool{false, true} {
			dst, src, links := roots(t)
			file := filepath.Join(src.Name(), "file")
			write(t, file, strings.Repeat("x", 3<<20))
			o := CopyOptions{Workers: 1}
			if still {
				o.Still = time.Now()
			}
			var cut bool
			o.Progress = func(string) {
				if !cut { // behind its first piece
					cut = true
					must(t, os.Truncate(file, left))
				}
			}
			var done Copied
			ended := make(chan error, 1)
			go func() {
				var err error
				done, err = Copy(t.Context(), dst, src, links, o)
				ended <- err
			}()
			select {
			case err := <-ended:
				if done.Shared > 0 {
					t.Skip("files share blocks here: they are copied at one moment")
				}
				if errors.Is(err, ErrChanged) != still || !still && err != nil {
					t.Errorf("cut to %d bytes, still %v: %v", left, still, err)
				}
			case <-time.After(time.Minute):
				t.Fatalf("cut to %d bytes, still %v: the copy does not end", left, still)
			}
			if !still {
				same(t, dst.Name(), src.Name())
			}
		}
	}
}

// TestCopyIsOfOneMoment: what was written after another file was copied, and before its
// own turn, is of a later moment, though nothing changes while it is copied.
func TestCopyIsOfOneMoment(t *testing.T) {
	for what, change := range map[string]func(dir string) error{
		"content": func(dir string) error { return os.WriteFile(filepath.Join(dir, "second/file"), []byte("later"), 0o644) },
		"name": func(dir string) error {
			return os.Rename(filepath.Join(dir, "second/file"), filepath.Join(dir, "second/other"))
		},
		"mode":      func(dir string) error { return os.Chmod(filepath.Join(dir, "second/link"), 0o600) },
		"directory": func(dir string) error { return os.Chmod(filepath.Join(dir, "second"), 0o700) },
		"root":      func(dir string) error { return os.Chmod(dir, 0o700) },
	} {
		dst, src, links := roots(t)
		write(t, filepath.Join(src.Name(), "first"), "first")
		write(t, filepath.Join(src.Name(), "second/file"), "second")
		must(t, unix.Mkfifo(filepath.Join(src.Name(), "second/link"), 0o644))
		asked := time.Now()
		time.Sleep(20 * time.Millisecond) // the clock of the file system ticks
		must(t, change(src.Name()))
		if _, err := Copy(t.Context(), dst, src, links, CopyOptions{Still: asked}); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: got %v, want ErrChanged", what, err)
		}
		if _, err := Copy(t.Context(), dst, src, links, CopyOptions{Still: time.Now()}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestCopyStopsAtMounts: a file system that is mounted inside of the source is not
// the source's, and a copy without it would not be whole.
func TestCopyStopsAtMounts(t *testing.T) {
	testenv.Root(t)
	dst, src, links := roots(t)
	at := filepath.Join(src.Name(), "a/mounted")
	must(t, os.MkdirAll(at, 0o755))
	other := t.TempDir()
	write(t, filepath.Join(other, "secret"), "secret")
	must(t, unix.Mount(other, at, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	if _, err := Copy(t.Context(), dst, src, links, CopyOptions{}); !errors.Is(err, ErrMount) {
		t.Errorf("got %v, want ErrMount", err)
	}
	if _, err := os.Stat(filepath.Join(dst.Name(), "a/mounted/secret")); err == nil {
		t.Error("what is mounted was copied")
	}
}
