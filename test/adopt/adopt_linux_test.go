package adopt

import (
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func (r *rig) must(err error) {
	r.t.Helper()
	must(r.t, err)
}

func (r *rig) write(target, text string) error {
	return os.WriteFile(r.path(target+"/data"), []byte(text), 0o600)
}

func (r *rig) read(target string) string {
	r.t.Helper()
	b, err := os.ReadFile(r.path(target + "/data"))
	r.must(err)
	return string(b)
}

// TestLife: a volume on its way to two pods and back, each call twice, with a
// restart of the driver at each stand.
func TestLife(t *testing.T) {
	each(t, func(r *rig) {
		r.flags = []string{"noatime"}
		r.image("v")
		for range 2 {
			r.must(r.stage("v", false))
			r.restart()
		}
		for range 2 {
			r.must(r.publish("v", "pod-a/mount", false, false))
			r.restart()
		}
		if s, p := r.mounts("staging-v"), r.mounts("pod-a/mount"); s != 1 || p != 1 {
			t.Errorf("%d mounts staged, %d published", s, p)
		}
		r.must(r.write("pod-a/mount", "kept"))
		r.must(r.publish("v", "pod-b/mount", false, true))
		if got := r.read("pod-b/mount"); got != "kept" {
			t.Errorf("the second pod reads %q", got)
		}
		if err := r.write("pod-b/mount", "lost"); !errors.Is(err, unix.EROFS) {
			t.Errorf("write to the read-only one: %v", err)
		}
		for _, target := range []string{"pod-b/mount", "pod-a/mount"} {
			for range 2 {
				r.must(r.unpublish("v", target))
				r.restart()
			}
			if _, err := os.Lstat(r.path(target)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", target, err)
			}
		}
		for range 2 {
			r.must(r.unstage("v"))
			r.restart()
		}
		// Another pod, days later.
		r.must(r.stage("v", false))
		r.must(r.publish("v", "pod-c/mount", false, false))
		if got := r.read("pod-c/mount"); got != "kept" {
			t.Errorf("the next pod reads %q", got)
		}
		r.must(r.unpublish("v", "pod-c/mount"))
		r.must(r.unstage("v"))
	})
}

// TestBlock: the same for a raw block volume.
func TestBlock(t *testing.T) {
	each(t, func(r *rig) {
		r.image("v")
		for range 2 {
			r.must(r.stage("v", true))
			r.must(r.publish("v", "pod/dev", true, false))
			r.restart()
		}
		if n := r.mounts("pod/dev"); n != 1 {
			t.Errorf("%d mounts", n)
		}
		f, err := os.OpenFile(r.path("pod/dev"), os.O_RDWR, 0)
		r.must(err)
		_, err = f.WriteAt([]byte("raw"), 4096)
		r.must(errors.Join(err, f.Sync(), f.Close()))
		for range 2 {
			r.must(r.unpublish("v", "pod/dev"))
		}
		for range 2 {
			r.must(r.unstage("v"))
		}
		b, err := os.ReadFile(r.disks.file("v"))
		r.must(err)
		if string(b[4096:4099]) != "raw" {
			t.Errorf("the image has %q", b[4096:4099])
		}
	})
}

// TestForeignData: what a driver finds on a disk that should be blank is not
// formatted, and nothing is left attached after the orchestrator gives up.
func TestForeignData(t *testing.T) {
	each(t, func(r *rig) {
		r.image("v")
		f, err := os.OpenFile(r.disks.file("v"), os.O_RDWR, 0)
		r.must(err)
		_, err = f.WriteAt([]byte("somebody's database"), 8192)
		r.must(errors.Join(err, f.Close()))
		before, err := os.ReadFile(r.disks.file("v"))
		r.must(err)
		for range 2 {
			if err := r.stage("v", false); err == nil || !strings.Contains(err.Error(), "holds") {
				t.Errorf("staged: %v", err)
			}
			r.restart()
		}
		if n := r.mounts("staging-v"); n != 0 {
			t.Errorf("%d mounts", n)
		}
		r.must(r.unstage("v"))
		after, err := os.ReadFile(r.disks.file("v"))
		r.must(err)
		if string(before) != string(after) {
			t.Error("the disk was changed")
		}
	})
}

// TestUnreadable: a disk whose reads fail is not blank. mount-utils 0.37.2 formats
// it.
func TestUnreadable(t *testing.T) {
	each(t, func(r *rig) {
		r.image("v")
		r.must(r.stage("v", false))
		r.must(r.publish("v", "pod/mount", false, false))
		r.must(r.write("pod/mount", "kept"))
		r.must(r.unpublish("v", "pod/mount"))
		r.must(r.unstage("v"))
		whole, err := os.ReadFile(r.disks.file("v"))
		r.must(err)
		loop, err := r.disks.attach(t.Context(), "v")
		r.must(err)
		r.must(os.Truncate(r.disks.file("v"), 0)) // the device keeps its size, and reads fail with EIO
		if err := r.stage("v", false); err == nil {
			t.Errorf("staged from %s", loop)
		}
		st, err := os.Stat(r.disks.file("v"))
		r.must(err)
		if st.Size() != 0 {
			t.Errorf("%d bytes were written", st.Size())
		}
		r.must(r.unstage("v"))
		r.must(os.WriteFile(r.disks.file("v"), whole, 0o600))
		r.must(r.stage("v", false))
		r.must(r.publish("v", "pod/mount", false, false))
		if got := r.read("pod/mount"); got != "kept" {
			t.Errorf("read %q", got)
		}
		r.must(r.unpublish("v", "pod/mount"))
		r.must(r.unstage("v"))
	})
}

// TestLostDisk: a target whose file system was shut down is unpublished all the
// same.
func TestLostDisk(t *testing.T) {
	each(t, func(r *rig) {
		r.image("v")
		r.must(r.stage("v", false))
		r.must(r.publish("v", "pod/mount", false, false))
		shutdown(t, r.path("staging-v"))
		if err := r.write("pod/mount", "lost"); !errors.Is(err, unix.EIO) {
			t.Fatalf("write to a file system that was shut down: %v", err)
		}
		r.must(r.unpublish("v", "pod/mount"))
		r.must(r.unstage("v"))
	})
}

// shutdown stops the ext4 at dir as a lost disk does.
func shutdown(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	const ext4Shutdown, noLogFlush = 0x8004587d, 2
	must(t, unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush))
}

// TestImports: each driver knows only what it is there to show.
func TestImports(t *testing.T) {
	for file, never := range map[string][]string{
		"engine_driver_linux_test.go": {"mount-utils", "kmount", "csidriver", "idempotency", "blockdev"},
		"legacy_driver_linux_test.go": {"csikit"},
	} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		must(t, err)
		for _, i := range f.Imports {
			for _, n := range never {
				if strings.Contains(i.Path.Value, n) {
					t.Errorf("%s imports %s", file, i.Path.Value)
				}
			}
		}
	}
}
