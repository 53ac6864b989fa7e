package lvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/fsfreeze"
	"github.com/csikit/csikit/internal/testenv"
)

// TestRealGroups are group snapshots and changed blocks with a real lvm, in one boot.
func TestRealGroups(t *testing.T) {
	if !testenv.InVM(t, "200M", "200M") {
		return
	}
	makeVG(t, "/dev/ubdb", "/dev/ubdc")
	play(t, []vmRow{
		{"group: one moment of mounted volumes, thick and thin", groupOfMounted},
		{"group: raw devices that are written to", groupOfRaw},
		{"group: frozen, and the driver and its child killed", frozenLeft},
		{"group: frozen by another process, that lives, and that was killed", frozenElsewhere},
		{"group: thawed by somebody else meanwhile", thawedMeanwhile},
		{"changed blocks: against all bytes, at random", changedBlocks},
		{"changed blocks: held by a driver that was killed", heldAndKilled},
	})
}

// mountedVolume is a volume with an ext4, mounted.
func mountedVolume(t *testing.T, b *Backend, name, class string) (v *backends.Volume, dir string) {
	t.Helper()
	v = createVolume(t, b, name, class, 16<<20)
	src := opened(t, b, v.ID, false)
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-O", "^has_journal", src.Device.Path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return v, mountAt(t, src.Device.Path)
}

func mountAt(t *testing.T, dev string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount(dev, dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	return dir
}

// numbers writes 1, 2, 3, ... to a file of each directory, a number to all of them
// before the next one: at one moment each has what the one before it has, or lacks the
// last.
func numbers(t *testing.T, dirs []string) (stop func()) {
	t.Helper()
	var files []*os.File
	for _, d := range dirs {
		f, err := os.OpenFile(filepath.Join(d, "numbers"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	var end atomic.Bool
	done := make(chan error, 1)
	go func() {
		var err error
		for n := uint64(1); err == nil && !end.Load() && n < 200_000; n++ {
			for _, f := range files {
				_, e := f.Write(binary.BigEndian.AppendUint64(nil, n))
				err = errors.Join(err, e)
			}
		}
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
		done <- err
	}()
	return func() {
		t.Helper()
		end.Store(true)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func groupOf(t *testing.T, b *Backend, name string, vols ...*backends.Volume) (*backends.GroupSnapshot, error) {
	t.Helper()
	req := backends.CreateGroupSnapshotRequest{Name: name}
	for _, v := range vols {
		req.VolumeIDs = append(req.VolumeIDs, v.ID)
	}
	return b.CreateGroupSnapshot(t.Context(), req)
}

func groupOfMounted(t *testing.T) {
	b := both(t, testOptions())
	var vols []*backends.Volume
	var dirs []string
	for i, class := range []string{"linear", "thin", "linear"} {
		v, dir := mountedVolume(t, b, fmt.Sprint("pvc-", i), class)
		vols, dirs = append(vols, v), append(dirs, dir)
	}
	stop := numbers(t, dirs)
	g, err := groupOf(t, b, "g", vols...)
	stop()
	if err != nil || len(g.Snapshots) != 3 {
		t.Fatal(g, err)
	}
	var last []uint64
	for _, v := range vols {
		for _, s := range g.Snapshots {
			if s.VolumeID != v.ID {
				continue
			}
			r := restored(t, b, &s, "copy of "+v.Name, strings.Split(v.ID, "/")[0], v.Capacity)
			src := opened(t, b, r.ID, false)
			all, err := os.ReadFile(filepath.Join(mountAt(t, src.Device.Path), "numbers"))
			if err != nil || len(all)%8 != 0 {
				t.Fatal(len(all), err)
			}
			last = append(last, uint64(len(all)/8))
		}
	}
	t.Logf("the members have numbers up to %d", last)
	for i := range last {
		if i > 0 && last[i] > last[i-1] || last[i]+1 < last[0] {
			t.Errorf("of no one moment: %d", last)
		}
	}
	if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: g.Snapshots[0].ID}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("a member alone: %v", err)
	}
	if err := b.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: g.ID}); err != nil {
		t.Error(err)
	}
	if _, err := b.GroupSnapshot(t.Context(), backends.GroupSnapshotRequest{ID: g.ID}); !errors.Is(err, backends.ErrNotFound) {
		t.Error(err)
	}
}

func groupOfRaw(t *testing.T) {
	b := both(t, testOptions())
	var vols []*backends.Volume
	var files []*os.File
	for i := range 2 {
		v := createVolume(t, b, fmt.Sprint("pvc-", i), "linear", 4<<20)
		f, err := os.OpenFile(opened(t, b, v.ID, true).Device.Path, os.O_WRONLY|os.O_SYNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		vols, files = append(vols, v), append(files, f)
	}
	b.step = func(at string) {
		if at != "group:member cut" {
			return
		}
		for _, f := range files {
			if _, err := f.WriteAt([]byte("x"), 0); err != nil {
				t.Error(err)
			}
		}
	}
	if g, err := groupOf(t, b, "g", vols...); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("a group of no moment: %+v, %v", g, err)
	}
	wantOnly(t, nameOf(kindVolume, "pvc-0"), nameOf(kindVolume, "pvc-1"))
	b.step = func(string) {}
	if _, err := groupOf(t, b, "g", vols...); err != nil {
		t.Errorf("when nobody writes: %v", err)
	}
}

// frozenLeft is what a driver leaves whose whole container was killed.
func frozenLeft(t *testing.T) {
	b := both(t, testOptions())
	v, dir := mountedVolume(t, b, "pvc-1", "linear")
	_, lv, err := b.volume(t.Context(), v.ID, kindVolume)
	if err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := errors.Join(os.WriteFile(b.markOf(lv.dmUUID()), []byte("x"), 0o600), fsfreeze.Hold(d)); err != nil {
		t.Fatal(err)
	}
	both(t, testOptions())
	if stillFrozen(t, d) {
		t.Error("still frozen")
	}
	noMarks(t)
}

// stillFrozen leaves it as it is.
func stillFrozen(t *testing.T, dir *os.File) bool {
	t.Helper()
	err := fsfreeze.Hold(dir)
	if err == nil {
		err = fsfreeze.Thaw(dir)
		if err == nil {
			return false
		}
	}
	if !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	return true
}

func noMarks(t *testing.T) {
	t.Helper()
	if left, err := filepath.Glob(filepath.Join(lockDir, frozenMark+"*")); len(left) > 0 || err != nil {
		t.Error(left, err)
	}
}

// changedBlocks writes, discards and cuts at random, and compares all bytes with what
// ChangedBlocks says of each two snapshots.
func changedBlocks(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed: %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	b := both(t, testOptions())
	const size = 8 << 20
	v := createVolume(t, b, "pvc-1", "thin", size)
	src := opened(t, b, v.ID, true)
	var snaps []*backends.Snapshot
	var contents [][]byte
	for i := range 4 {
		for range random.IntN(12) {
			p := make([]byte, 1+random.IntN(100<<10))
			for i := range p {
				p[i] = byte(random.Uint32())
			}
			write(t, src.Device.Path, p, random.Int64N(size-int64(len(p))))
		}
		if off := random.Int64N(size>>16) << 16; i > 0 {
			discard(t, src.Device.Path, off, 64<<10)
			write(t, src.Device.Path, make([]byte, 4096), random.Int64N(size>>12)<<12) // zeros are a change too
		}
		snaps = append(snaps, snapshotOf(t, b, fmt.Sprint("s", i), v.ID))
		contents = append(contents, read(t, src.Device.Path, size, 0))
	}
	list := func(base, target string) (in func(off int64) bool, n int64) {
		t.Helper()
		m, err := b.ChangedBlocks(t.Context(), backends.ChangedBlocksRequest{Base: base, Target: target})
		if err != nil || m.VolumeSize != size {
			t.Fatal(m.VolumeSize, err)
		}
		told := map[int64]bool{}
		for block, err := range m.Blocks {
			if err != nil {
				t.Fatal(err)
			}
			for off := block.Offset; off < block.Offset+block.Size; off += 4096 {
				told[off] = true
			}
			n += block.Size
		}
		return func(off int64) bool { return told[off] }, n
	}
	zero := make([]byte, 4096)
	for i := range snaps {
		in, _ := list("", snaps[i].ID)
		for off := 0; off < size; off += 4096 {
			if !bytes.Equal(contents[i][off:off+4096], zero) && !in(int64(off)) {
				t.Errorf("seed %d: there is data at %d of snapshot %d, and it is not told", seed, off, i)
			}
		}
		for j := range i {
			in, n := list(snaps[j].ID, snaps[i].ID)
			wrong := 0
			for off := 0; off < size; off += 4096 {
				same := bytes.Equal(contents[i][off:off+4096], contents[j][off:off+4096])
				if !same && !in(int64(off)) {
					wrong++
				}
			}
			if wrong > 0 {
				t.Errorf("seed %d: %d blocks differ between snapshots %d and %d and are not told", seed, wrong, j, i)
			}
			if n > int64(i-j)*40*(164<<10) {
				t.Errorf("seed %d: %d bytes are told", seed, n)
			}
		}
	}
	_, p, err := b.volume(t.Context(), snaps[0].ID, kindSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	if _, held, err := b.kernel.metadataOf(p.g.named(testPool).dmUUID()); held || err != nil || strings.Contains(strings.Join(p.tags, " "), tagHolds) {
		t.Errorf("the metadata is held: %v", err)
	}
}

func discard(t *testing.T, path string, off, n int64) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "blkdiscard", "-o", fmt.Sprint(off), "-l", fmt.Sprint(n), path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// heldAndKilled: a held snapshot of the metadata is released by the next start, or the
// next list; somebody else's is left alone.
func heldAndKilled(t *testing.T) {
	b := both(t, testOptions())
	v := createVolume(t, b, "pvc-1", "thin", 8<<20)
	s := snapshotOf(t, b, "s", v.ID)
	pool := func(b *Backend) string {
		_, lv, err := b.volume(t.Context(), s.ID, kindSnapshot)
		if err != nil {
			t.Fatal(err)
		}
		return lv.g.named(testPool).dmUUID()
	}
	held := func() bool {
		_, held, err := b.kernel.metadataOf(pool(b))
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	ask := func(b *Backend) error {
		_, err := b.ChangedBlocks(t.Context(), backends.ChangedBlocksRequest{Target: s.ID})
		return err
	}
	die := func() {
		t.Helper()
		stopped := make(chan struct{})
		dead := open(t, testOptions())
		dead.step = func(at string) {
			if at == "changed:held" {
				close(stopped)
				select {}
			}
		}
		go func() { _ = ask(dead) }()
		<-stopped
		if !held() {
			t.Fatal("not held")
		}
	}
	die()
	b = both(t, testOptions())
	if held() {
		t.Error("still held after a start")
	}
	die()
	if err := ask(b); err != nil || held() {
		t.Errorf("the next list: %v, held %v", err, held())
	}
	if err := b.kernel.message(pool(b), "reserve_metadata_snap"); err != nil {
		t.Fatal(err)
	}
	if err := ask(b); !errors.Is(err, backends.ErrUnavailable) || !held() {
		t.Errorf("somebody else's: %v, held %v", err, held())
	}
	if err := b.kernel.message(pool(b), "release_metadata_snap"); err != nil {
		t.Fatal(err)
	}
}
