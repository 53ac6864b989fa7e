package loopfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/fsfreeze"
	"github.com/csikit/csikit/internal/testenv"
)

// sequence writes 1, 2, 3, ... to a file of each directory: a number to all of
// them before the next one. So at one moment each has the numbers that the one
// before it has, or lacks the last of them.
type sequence struct {
	t     testing.TB
	dirs  []string
	n     atomic.Uint64 // written everywhere
	end   chan struct{}
	ended chan error
}

func startSequence(t testing.TB, dirs []string) *sequence {
	t.Helper()
	s := &sequence{t: t, dirs: dirs, end: make(chan struct{}), ended: make(chan error, 1)}
	var files []*os.File
	for _, d := range dirs {
		f, err := os.OpenFile(filepath.Join(d, "sequence"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	go func() { s.ended <- s.write(files) }()
	s.wantGoing("at the beginning")
	return s
}

func (s *sequence) write(files []*os.File) (err error) {
	defer closeAll(files)
	for n := uint64(1); ; n++ {
		for _, f := range files {
			if _, err := f.Write(binary.BigEndian.AppendUint64(nil, n)); err != nil {
				return err
			}
		}
		s.n.Store(n)
		select {
		case <-s.end:
			return nil
		default:
		}
	}
}

// wantGoing says that nothing keeps the writer from writing. What does is thawed,
// so that the test ends.
func (s *sequence) wantGoing(when string) {
	s.t.Helper()
	for start, from := time.Now(), s.n.Load(); s.n.Load() < from+2; time.Sleep(time.Millisecond) {
		if time.Since(start) < 30*time.Second {
			continue
		}
		s.t.Errorf("%s: frozen for 30 s", when)
		for _, d := range s.dirs {
			if f, err := os.Open(d); err == nil {
				_ = fsfreeze.Thaw(f)
				f.Close()
			}
		}
		return
	}
}

func (s *sequence) stop() {
	s.t.Helper()
	close(s.end)
	if err := <-s.ended; err != nil {
		s.t.Error(err)
	}
}

// sequenceIn is the last number in a directory, all before it being there.
func sequenceIn(t testing.TB, dir string) uint64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "sequence"))
	if err != nil || len(b)%8 != 0 {
		t.Errorf("%s: %d bytes, %v", dir, len(b), err)
	}
	n := uint64(0)
	for ; len(b) >= 8; b = b[8:] {
		if n++; binary.BigEndian.Uint64(b) != n {
			t.Fatalf("%s: %d where %d was written", dir, binary.BigEndian.Uint64(b), n)
		}
	}
	return n
}

var groupFS = []string{"ext4", "xfs", "btrfs"}

// writtenGroup has a volume with each file system, mounted and written to.
func writtenGroup(t *testing.T, o Options) (node *Backend, vols []string, s *sequence) {
	t.Helper()
	ctrl := open1(t, o)
	for _, fs := range groupFS {
		vols = append(vols, create(t, ctrl, fs, 320*mib, paramType, typeThin).ID)
	}
	ctrl.Close()
	o.Half = NodeHalf
	node = openNode(t, o)
	var dirs []string
	for i, fs := range groupFS {
		dirs = append(dirs, mountVolume(t, node, vols[i], fs, true))
	}
	return node, vols, startSequence(t, dirs)
}

// oneMoment restores the members of a group, mounts them and compares.
func oneMoment(t *testing.T, node, ctrl *Backend, g *backends.GroupSnapshot, vols []string) {
	t.Helper()
	var last []uint64
	for i, fs := range groupFS {
		for _, m := range g.Snapshots {
			if m.VolumeID != vols[i] {
				continue
			}
			name := "of " + g.Name + " " + fs
			r := restore(t, ctrl, &m, name, 320*mib, paramType, typeThin)
			t.Run(name, func(t *testing.T) {
				last = append(last, sequenceIn(t, mountVolume(t, node, r.ID, fs, false)))
			})
			remove(t, ctrl, r.ID)
		}
	}
	t.Logf("group %s has %d", g.Name, last)
	if len(last) != len(vols) {
		t.Fatalf("%d members", len(last))
	}
	for i := 1; i < len(last); i++ {
		if last[i] > last[i-1] || last[i]+1 < last[0] {
			t.Errorf("group %s is of no one moment: the volumes have numbers up to %d", g.Name, last)
		}
	}
}

func TestGroupOfMountedVolumes(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		node, vols, s := writtenGroup(t, o)
		defer s.stop()
		ctrl := open1(t, o)
		defer ctrl.Close()
		for i := range 3 {
			req := backends.CreateGroupSnapshotRequest{Name: fmt.Sprint("g", i), VolumeIDs: vols}
			g, err := ctrl.CreateGroupSnapshot(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			s.wantGoing("after " + req.Name)
			oneMoment(t, node, ctrl, g, vols)
			if err := ctrl.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: g.ID}); err != nil {
				t.Fatal(err)
			}
			ctrl.purges.wait()
		}
		wantClean(t, o.Pool)
	})
}

// TestKilledGroupOfMountedVolumes: wherever the driver dies, all volumes go on, and
// there is no group or a whole one.
func TestKilledGroupOfMountedVolumes(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		node, vols, s := writtenGroup(t, o)
		defer s.stop()
		work := order{Pool: o.Pool, Op: "group", Name: "g", IDs: vols, Half: ControllerHalf}
		again := func(when string) {
			t.Helper()
			s.wantGoing(when)
			ctrl := open1(t, o)
			defer ctrl.Close()
			wantClean(t, o.Pool)
			for _, id := range vols {
				if _, err := os.Stat(filepath.Join(filepath.Dir(imgPath(node, id)), frozenFile)); err == nil {
					t.Errorf("%s: the mark is left", when)
				}
			}
			req := backends.CreateGroupSnapshotRequest{Name: "g", VolumeIDs: vols}
			g, err := ctrl.FindGroupSnapshot(t.Context(), req)
			if errors.Is(err, backends.ErrNotFound) {
				g, err = ctrl.CreateGroupSnapshot(t.Context(), req)
			}
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			s.wantGoing("after another, " + when)
			oneMoment(t, node, ctrl, g, vols)
			if err := ctrl.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: g.ID}); err != nil {
				t.Fatal(err)
			}
			ctrl.purges.wait()
		}
		steps := []string{"loopfile.quiesce.frozen", "loopfile.cut.quiet", "loopfile.cut.linked", "loopfile.cut.cut", "loopfile.cut.built", "loopfile.appear.renamed"}
		if filepath.Base(t.Name()) == "pool_on_ext4" {
			steps = []string{"loopfile.quiesce.frozen", "loopfile.cut.quiet", "loopfile.cut.cut", "loopfile.appear.renamed"}
		}
		for _, step := range steps {
			work.KillAt = step
			runKilled(t, work)
			again("killed at " + step)
		}
	})
}

// TestGroupKilledAfterEachIoctl: FIFREEZE, FICLONE and FITHAW are some.
func TestGroupKilledAfterEachIoctl(t *testing.T) {
	testenv.Tool(t, "strace")
	if testing.Short() {
		t.Skip("processes under strace")
	}
	img, dir := disk(t, "xfs", "3G")
	mountDisk(t, img, dir)
	o := testOptions(t)
	o.Pool = dir
	_, vols, s := writtenGroup(t, o)
	defer s.stop()
	died := 0
	for survived := 0; survived < 2; {
		if traced(t, order{Pool: o.Pool, Op: "group", Name: "g", IDs: vols, Half: ControllerHalf}, "ioctl", died+survived+1) {
			died++
		} else {
			survived++
		}
		s.wantGoing(fmt.Sprintf("killed after ioctl %d", died+survived))
		ctrl := open1(t, o)
		wantClean(t, o.Pool)
		req := backends.CreateGroupSnapshotRequest{Name: "g"}
		if g, err := ctrl.FindGroupSnapshot(t.Context(), req); err == nil {
			if err := ctrl.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: g.ID}); err != nil {
				t.Error(err)
			}
		} else if !errors.Is(err, backends.ErrNotFound) {
			t.Error(err)
		}
		ctrl.Close()
	}
	t.Logf("killed %d times", died)
}
