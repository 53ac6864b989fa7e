package loopfile

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// tree is what a file system holds: each path with what is there.
type tree map[string]string

// plant writes files of many kinds below a directory.
func plant(t testing.TB, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.NewChaCha8([32]byte{1})
	for i, size := range []int{0, 1, 59, 4095, 4096, 4097, 100_000, 3 * mib} {
		sub := filepath.Join(dir, fmt.Sprint("d", i%3), "e")
		must(os.MkdirAll(sub, 0o755))
		b := make([]byte, size)
		_, _ = seed.Read(b)
		must(os.WriteFile(filepath.Join(sub, fmt.Sprint("f", i)), b, os.FileMode(0o600+i)))
	}
	for i := range 200 {
		must(os.WriteFile(filepath.Join(dir, "d0", fmt.Sprint("small", i)), fmt.Append(nil, i, "ü"), 0o644))
	}
	holes, err := os.Create(filepath.Join(dir, "holes"))
	must(err)
	for i := range int64(5) {
		b := make([]byte, 5000)
		_, _ = seed.Read(b)
		_, err := holes.WriteAt(b, i*mib+i*1000)
		must(err)
	}
	must(holes.Close())
	must(os.Symlink("d0/e/f0", filepath.Join(dir, "link")))
	must(os.Link(filepath.Join(dir, "holes"), filepath.Join(dir, "hard")))
	must(unix.Setxattr(filepath.Join(dir, "holes"), "user.csikit", []byte("value"), 0))
}

// read is the tree below a directory, every byte of it.
func read(t testing.TB, dir string) tree {
	t.Helper()
	all := tree{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, dir)
		if err != nil || name == "" || name == "/lost+found" {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		what := fmt.Sprint(fi.Mode(), fi.ModTime().UnixNano())
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			attr := make([]byte, 100)
			n, _ := unix.Getxattr(path, "user.csikit", attr) // most have none
			what += fmt.Sprintf(" %x %q", sha256.Sum256(b), attr[:max(n, 0)])
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += " " + to
		}
		all[name] = what
		return nil
	})
	if err != nil {
		t.Errorf("read %s: %v", dir, err)
	}
	return all
}

func wantTree(t testing.TB, when string, got, want tree) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] != want[k] {
			t.Errorf("%s: %s is %q, want %q", when, k, got[k], want[k])
			return
		}
	}
	t.Errorf("%s: %d files, want %d", when, len(got), len(want))
}

// planted is a pool with a volume that has a file system with files.
type planted struct {
	o    Options
	node *Backend
	fs   string
	vol  string
	was  tree
	snap string
}

func newPlanted(t *testing.T, o Options, fsType string) *planted {
	t.Helper()
	ctrl := open1(t, o)
	p := &planted{o: o, fs: fsType, vol: create(t, ctrl, "v", 320*mib, paramType, typeThin).ID}
	ctrl.Close()
	o.Half = NodeHalf
	p.node = openNode(t, o)
	t.Run("plant", func(t *testing.T) {
		dir := mountVolume(t, p.node, p.vol, fsType, true)
		plant(t, dir)
		p.was = read(t, dir)
	})
	if len(p.was) < 200 {
		t.Fatalf("%d files", len(p.was))
	}
	ctrl = open1(t, o)
	p.snap = snap(t, ctrl, "before", p.vol).ID
	ctrl.Close()
	return p
}

// wantFiles mounts a volume and compares.
func (p *planted) wantFiles(t *testing.T, when, id string) {
	t.Helper()
	t.Run("files "+when, func(t *testing.T) {
		wantTree(t, when, read(t, mountVolume(t, p.node, id, p.fs, false)), p.was)
	})
}

// result is what an operation made, as a volume to look at; "": nothing.
func (p *planted) result(t *testing.T, ctrl *Backend, op string) (id string) {
	t.Helper()
	var s *backends.Snapshot
	switch op {
	case "restore", "clone":
		v, err := ctrl.FindVolume(t.Context(), request("new", 0))
		if errors.Is(err, backends.ErrNotFound) {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		return v.ID
	case "snapshot":
		got, err := ctrl.FindSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "new"})
		if errors.Is(err, backends.ErrNotFound) {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		s = waitReady(t, ctrl, got)
		defer func() { _ = ctrl.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}) }()
	case "group":
		g, err := ctrl.FindGroupSnapshot(t.Context(), backends.CreateGroupSnapshotRequest{Name: "new"})
		if errors.Is(err, backends.ErrNotFound) {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		s = waitReady(t, ctrl, &g.Snapshots[0])
		defer func() { _ = ctrl.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: g.ID}) }()
	}
	return restore(t, ctrl, s, "of "+op, 400*mib, paramType, typeThin).ID
}

// TestFilesAfterKill: the driver dies in the middle of each copy of a volume with
// files. What it made, and what the next one makes, has every file byte for byte;
// so have the source, and the volume after it is grown.
func TestFilesAfterKill(t *testing.T) {
	if testing.Short() {
		t.Skip("about 90 processes, 300 mounts")
	}
	onEachFS(t, func(t *testing.T, o Options) {
		for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
			t.Run(fsType, func(t *testing.T) {
				oneFS := o
				oneFS.Pool = filepath.Join(o.Pool, fsType)
				p := newPlanted(t, oneFS, fsType)
				for _, mounted := range []bool{false, true} {
					t.Run(fmt.Sprint("mounted ", mounted), func(t *testing.T) { p.kill(t, mounted) })
				}
				p.expand(t)
			})
		}
	})
}

func (p *planted) kill(t *testing.T, mounted bool) {
	dir := ""
	if mounted {
		dir = mountVolume(t, p.node, p.vol, p.fs, false)
	}
	copies := strings.Contains(t.Name(), "pool_on_ext4") && !mounted // by a job
	steps := []struct{ op, at string }{
		{"snapshot", "loopfile.cut.cut"}, {"snapshot", "loopfile.copy.part"}, {"group", "loopfile.cut.quiet"}, {"group", "loopfile.copy.part"},
		{"restore", "loopfile.derive.copied"}, {"restore", "loopfile.derive.renewed"}, {"clone", "loopfile.derive.copied"}, {"clone", "loopfile.create.built"},
	}
	if mounted {
		steps = []struct{ op, at string }{{"snapshot", "loopfile.cut.quiet"}, {"group", "loopfile.appear.renamed"}, {"clone", "loopfile.clone.quiet"}}
	}
	for _, w := range steps {
		if w.at == "loopfile.copy.part" && !copies {
			continue
		}
		when := "killed at " + w.op + " " + w.at
		work := order{Pool: p.o.Pool, Op: w.op, Name: "new", ID: p.vol, IDs: []string{p.vol}, Size: 400 * mib, Type: typeThin, Half: ControllerHalf, KillAt: w.at}
		if w.op == "restore" {
			work.ID = p.snap
		}
		runKilled(t, work)
		ctrl := open1(t, p.o)
		wantClean(t, p.o.Pool)
		id := p.result(t, ctrl, w.op)
		if id == "" {
			ctrl.Close()
			work.KillAt = ""
			if out, err := orderCommand(t, work).CombinedOutput(); err != nil {
				t.Fatalf("%s: again: %v\n%s", when, err, out)
			}
			ctrl = open1(t, p.o)
			id = p.result(t, ctrl, w.op)
		}
		p.wantFiles(t, when, id)
		remove(t, ctrl, id)
		if mounted {
			wantTree(t, when+": the source", read(t, dir), p.was)
		}
		ctrl.Close()
	}
}

// expand grows the volume, killed in between, and what is on it.
func (p *planted) expand(t *testing.T) {
	size := int64(320 * mib)
	for _, step := range []string{"loopfile.expand.target", "loopfile.expand.grown", ""} {
		size += 32 * mib
		work := order{Pool: p.o.Pool, Op: "expand", ID: p.vol, Size: size, Half: ControllerHalf, KillAt: step}
		if step != "" {
			runKilled(t, work)
		} else if out, err := orderCommand(t, work).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		ctrl := open1(t, p.o)
		v, err := ctrl.Volume(t.Context(), backends.VolumeRequest{ID: p.vol})
		if err != nil || v.Capacity != size {
			t.Fatalf("expand killed at %q: %+v, %v", step, v, err)
		}
		ctrl.Close()
		t.Run("grown "+step, func(t *testing.T) { p.grow(t, size) })
	}
}

func (p *planted) grow(t *testing.T, size int64) {
	if p.fs == "ext4" { // which the host cannot grow while it is mounted
		src := openIt(t, p.node, p.vol, nil)
		run(t, "e2fsck", "-f", "-p", src.Device.Path)
		run(t, "resize2fs", src.Device.Path)
		closeIt(t, p.node, p.vol, src.State)
	}
	dir := mountVolume(t, p.node, p.vol, p.fs, false)
	switch p.fs {
	case "xfs":
		run(t, "xfs_growfs", dir)
	case "btrfs":
		run(t, "btrfs", "filesystem", "resize", "max", dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || grown(&st) < size*3/4 {
		t.Errorf("%d bytes of %d, %v", grown(&st), size, err)
	}
	wantTree(t, "grown", read(t, dir), p.was)
}

// TestRestoreKilledAfterEachSyscall: the tools that give a copy an identity of its
// own are killed too, and the driver with them.
func TestRestoreKilledAfterEachSyscall(t *testing.T) {
	testenv.Tool(t, "strace")
	if testing.Short() {
		t.Skip("processes under strace")
	}
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			img, dir := disk(t, "xfs", "3G")
			mountDisk(t, img, dir)
			o := testOptions(t)
			o.Pool = dir
			p := newPlanted(t, o, fsType)
			t.Run("of a mounted one", func(t *testing.T) {
				// Frozen, its log is not empty.
				_ = mountVolume(t, p.node, p.vol, p.fs, false)
				ctrl := open1(t, o)
				p.snap = snap(t, ctrl, "mounted", p.vol).ID
				ctrl.Close()
			})
			work := order{Pool: o.Pool, Op: "restore", Name: "new", ID: p.snap, Size: 400 * mib, Type: typeThin, Half: ControllerHalf}
			for _, call := range []string{"pwrite64", "fsync", "fsconfig", "fsmount", "ioctl"} {
				died, survived, step := 0, 0, 1
				if call == "pwrite64" {
					step = 5 // the tools write block by block
				}
				for n := 1; survived < 1 && n < 40; n += step {
					if traced(t, work, call, n) {
						died++
					} else {
						survived++
					}
					when := fmt.Sprintf("killed after %s %d", call, n)
					ctrl := open1(t, o)
					wantClean(t, o.Pool)
					id := p.result(t, ctrl, "restore")
					if id == "" && died%4 == 1 {
						id = restore(t, ctrl, &backends.Snapshot{ID: p.snap}, "new", 400*mib, paramType, typeThin).ID
					}
					if id != "" {
						p.wantFiles(t, when, id)
						remove(t, ctrl, id)
					}
					if left := loopsBelow(t, o.Pool); len(left) > 0 {
						t.Errorf("%s: loop devices left: %q", when, left)
					}
					ctrl.Close()
				}
				t.Logf("%s: killed %d times", call, died)
			}
		})
	}
}
