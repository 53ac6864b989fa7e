package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/fsfreeze"
	"github.com/csikit/csikit/internal/testenv"
)

// rig is a pool in which every data service has something to do.
type rig struct {
	o    Options
	vols []string
	snap string // of vols[0]
	was  [32]byte
}

const rigSize = 8 * mib

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	b := open(t, o)
	defer b.Close()
	r := &rig{o: o}
	for _, n := range []string{"a", "b"} {
		v := create(t, b, n, rigSize)
		scribble(t, imgPath(b, v.ID), rigSize, 1500)
		r.vols = append(r.vols, v.ID)
	}
	r.was = digest(t, imgPath(b, r.vols[0]), rigSize)
	r.snap = snap(t, b, "before", r.vols[0]).ID
	return r
}

// orderFor is the operation, on this pool.
func (r *rig) orderFor(op string) order {
	o := order{Pool: r.o.Pool, Op: op, Name: "new", ID: r.vols[0], IDs: r.vols, Size: 12 * mib, Type: typeThick}
	if op == "restore" || op == "deletesnapshot" {
		o.ID = r.snap
	}
	return o
}

// wantWhole says that the next driver finds what the operation makes, whole, or
// nothing of it; then it removes it.
func (r *rig) wantWhole(t *testing.T, when, op string) (made bool) {
	t.Helper()
	b := open(t, r.o)
	defer b.Close()
	wantClean(t, r.o.Pool)
	if digest(t, imgPath(b, r.vols[0]), rigSize) != r.was {
		t.Errorf("%s: the source changed", when)
	}
	switch op {
	case "restore", "clone":
		v, err := b.FindVolume(t.Context(), request("new", 0))
		if errors.Is(err, backends.ErrNotFound) {
			return false
		}
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		fi := stat(t, imgPath(b, v.ID))
		if v.Capacity != 12*mib || fi.Size() != 12*mib || allocated(fi) < fi.Size() || v.Source == (backends.ContentSource{}) {
			t.Errorf("%s: %+v with %d bytes, %d allocated", when, v, fi.Size(), allocated(fi))
		}
		if digest(t, imgPath(b, v.ID), rigSize) != r.was {
			t.Errorf("%s: other bytes", when)
		}
		remove(t, b, v.ID)
	case "snapshot":
		s, err := b.FindSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "new"})
		if errors.Is(err, backends.ErrNotFound) {
			return false
		}
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		s = waitReady(t, b, s)
		if digest(t, snapPath(b, s.ID, r.vols[0]), rigSize) != r.was {
			t.Errorf("%s: other bytes", when)
		}
		if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}); err != nil {
			t.Fatal(err)
		}
	case "group":
		g, err := b.FindGroupSnapshot(t.Context(), backends.CreateGroupSnapshotRequest{Name: "new"})
		if errors.Is(err, backends.ErrNotFound) {
			return false
		}
		if err != nil || len(g.Snapshots) != 2 {
			t.Fatalf("%s: %+v, %v", when, g, err)
		}
		if done, _ := b.jobs.get(g.ID); done != nil {
			<-done
		}
		for _, s := range g.Snapshots {
			if digest(t, snapPath(b, s.ID, s.VolumeID), rigSize) != digest(t, imgPath(b, s.VolumeID), rigSize) {
				t.Errorf("%s: other bytes", when)
			}
		}
		if err := b.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: g.ID}); err != nil {
			t.Fatal(err)
		}
	case "deletesnapshot":
		s, err := b.Snapshot(t.Context(), backends.SnapshotRequest{ID: r.snap})
		if errors.Is(err, backends.ErrNotFound) {
			snap(t, b, "before", r.vols[0])
			return true
		}
		if err != nil || !s.Ready || digest(t, snapPath(b, s.ID, r.vols[0]), rigSize) != r.was {
			t.Fatalf("%s: %+v, %v", when, s, err)
		}
		return false
	}
	b.purges.wait()
	return true
}

func TestKilledDataService(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		r := newRig(t, o)
		for op, steps := range map[string]map[string]bool{ // step: is it there afterwards
			"snapshot":       {"loopfile.cut.quiet": false, "loopfile.cut.cut": false, "loopfile.cut.filled": false, "loopfile.cut.built": false, "loopfile.appear.renamed": true, "loopfile.cut.synced": true},
			"group":          {"loopfile.cut.quiet": false, "loopfile.cut.cut": false, "loopfile.cut.built": false, "loopfile.appear.renamed": true},
			"restore":        {"loopfile.derive.copied": false, "loopfile.derive.renewed": false, "loopfile.create.built": false, "loopfile.appear.renamed": true},
			"clone":          {"loopfile.clone.quiet": false, "loopfile.derive.copied": false, "loopfile.create.built": false, "loopfile.appear.renamed": true},
			"deletesnapshot": {"loopfile.deletesnapshot.renamed": true},
		} {
			if filepath.Base(t.Name()) == "pool_on_ext4" && (op == "snapshot" || op == "group") {
				steps["loopfile.copy.start"], steps["loopfile.copy.part"], steps["loopfile.copy.copied"] = true, true, true
			}
			for step, made := range steps {
				t.Run(op+" "+step, func(t *testing.T) {
					work := r.orderFor(op)
					work.KillAt = step
					runKilled(t, work)
					if got := r.wantWhole(t, step, op); got != made {
						t.Errorf("there afterwards: %v, want %v", got, made)
					}
					// And it works the second time.
					work.KillAt = ""
					if out, err := orderCommand(t, work).CombinedOutput(); err != nil {
						t.Fatalf("again: %v\n%s", err, out)
					}
					if !r.wantWhole(t, "again", op) {
						t.Error("not there the second time")
					}
				})
			}
		}
	})
}

// TestServicesKilledAfterEachSyscall is TestKilledAfterEachSyscall for the data
// services: on xfs by reflink, on ext4 by copies.
func TestServicesKilledAfterEachSyscall(t *testing.T) {
	testenv.Tool(t, "strace")
	if testing.Short() {
		t.Skip("some hundred processes under strace")
	}
	onEachFS(t, func(t *testing.T, o Options) {
		r := newRig(t, o)
		calls := []string{"mkdirat", "ioctl", "ftruncate", "fallocate", "fsync", "renameat2", "renameat"}
		if filepath.Base(t.Name()) == "pool_on_ext4" {
			calls = append(calls, "pwrite64")
		}
		for _, op := range []string{"snapshot", "group", "restore", "clone"} {
			for _, call := range calls {
				t.Run(op+" "+call, func(t *testing.T) {
					died, survived := 0, 0
					for n := 1; survived < 2; n++ {
						if traced(t, r.orderFor(op), call, n) {
							died++
						} else {
							survived++
						}
						r.wantWhole(t, fmt.Sprintf("%s killed after %s %d", op, call, n), op)
					}
					t.Logf("killed %d times", died)
				})
			}
		}
	})
}

// TestFrozenAndKilled: a driver that dies with a volume frozen leaves it thawed,
// by its child within seconds, and by the next driver when the child died too.
func TestFrozenAndKilled(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		for _, fs := range []string{"xfs", "ext4", "btrfs"} {
			for _, how := range []string{"child", "recovery"} {
				t.Run(fs+" by "+how, func(t *testing.T) {
					n := o
					n.Half = NodeHalf
					ctrl := open1(t, o)
					v := create(t, ctrl, "v", 320*mib, paramType, typeThin)
					ctrl.Close()
					b := openNode(t, n)
					dir := mountVolume(t, b, v.ID, fs, true)
					work := order{Pool: o.Pool, Op: "snapshot", Name: "s", ID: v.ID, Half: ControllerHalf, KillAt: "loopfile.cut.quiet"}
					if how == "recovery" {
						// As when a whole container is killed: nobody is left to thaw.
						d, err := os.Open(dir)
						if err != nil {
							t.Fatal(err)
						}
						if err := fsfreeze.Hold(d); err != nil {
							t.Fatal(err)
						}
						d.Close()
						if err := os.WriteFile(filepath.Join(filepath.Dir(imgPath(b, v.ID)), frozenFile), nil, 0o600); err != nil {
							t.Fatal(err)
						}
						c := open1(t, o)
						c.Close()
					} else {
						runKilled(t, work)
					}
					wrote := make(chan error, 1)
					go func() { wrote <- os.WriteFile(filepath.Join(dir, "f"), []byte("data"), 0o600) }()
					select {
					case err := <-wrote:
						if err != nil {
							t.Error(err)
						}
					case <-time.After(30 * time.Second):
						t.Error("still frozen after 30 s")
						d, _ := os.Open(dir)
						_ = fsfreeze.Thaw(d)
						d.Close()
						<-wrote
					}
					c := open1(t, o)
					if _, err := os.Stat(filepath.Join(filepath.Dir(imgPath(b, v.ID)), frozenFile)); err == nil {
						t.Error("the mark is left")
					}
					wantClean(t, o.Pool)
					c.Close()
				})
				c := open1(t, o)
				for _, id := range list(t, c, 10) {
					remove(t, c, id)
				}
				c.Close()
			}
		}
	})
}

// open1 opens the controller half and recovers it.
func open1(t testing.TB, o Options) *Backend {
	o.Half = ControllerHalf
	return open(t, o)
}

// TestFreezeLimit: a volume is not kept from writing for longer, and what is cut
// later is not kept.
func TestFreezeLimit(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		o.FreezeLimit = 200 * time.Millisecond
		b := openNode(t, o)
		v := create(t, b, "v", 320*mib, paramType, typeThin)
		dir := mountVolume(t, b, v.ID, "xfs", true)
		b.step = func(s string) {
			if s != "loopfile.cut.quiet" {
				return
			}
			// Writes block until the limit thaws the file system.
			if err := os.WriteFile(filepath.Join(dir, "f"), []byte("data"), 0o600); err != nil {
				t.Error(err)
			}
		}
		_, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
		if err == nil || !errors.Is(err, errLate) && !errors.Is(err, backends.ErrPrecondition) {
			t.Errorf("a snapshot of no moment: %v", err)
		}
		b.step = func(string) {}
		b.o.FreezeLimit = time.Minute // enough, however busy the machine is
		wantClean(t, o.Pool)
		snap(t, b, "s", v.ID)
	})
}

// TestForeignFreezeStays: what somebody else froze is cut as it is, and theirs to
// thaw; when they do while a copy is made, and the volume is written to, no
// snapshot comes of it.
func TestForeignFreezeStays(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		b := openNode(t, o)
		v := create(t, b, "v", 320*mib, paramType, typeThin)
		dir := mountVolume(t, b, v.ID, "ext4", true)
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := fsfreeze.Hold(d); err != nil {
			t.Fatal(err)
		}
		snap(t, b, "s", v.ID)
		if err := fsfreeze.Thaw(d); err != nil {
			t.Errorf("it was thawed: %v", err)
		}
		if err := fsfreeze.Hold(d); err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		thawed := make(chan struct{})
		ctx := backends.WithActivity(t.Context(), progress(func() {
			once.Do(func() {
				defer close(thawed)
				if err := errors.Join(fsfreeze.Thaw(d), os.WriteFile(filepath.Join(dir, "f"), []byte("data"), 0o600), d.Sync()); err != nil {
					t.Error(err)
				}
				syscall.Sync()
			})
		}))
		_, err = b.CreateSnapshot(ctx, backends.CreateSnapshotRequest{Name: "torn", VolumeID: v.ID})
		select {
		case <-thawed: // the pool has no reflinks: bytes were copied meanwhile
			if !errors.Is(err, backends.ErrPrecondition) {
				t.Errorf("a snapshot of no moment: %v", err)
			}
		default:
			if err := errors.Join(err, fsfreeze.Thaw(d)); err != nil {
				t.Error(err)
			}
		}
		wantClean(t, o.Pool)
	})
}

// TestWrittenAllTheTime: a raw volume that is never still cannot be copied where
// blocks cannot be shared, and that is its user's to change.
func TestWrittenAllTheTime(t *testing.T) {
	img, dir := disk(t, "ext4", "1G")
	mountDisk(t, img, dir)
	o := testOptions(t)
	o.Pool = dir
	b := openNode(t, o)
	v := create(t, b, "v", 8*mib, paramType, typeThin)
	src := openIt(t, b, v.ID, nil)
	dev, err := os.OpenFile(src.Device.Path, os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	wrote := make(chan error)
	go func() {
		var err error
		for n := byte(0); err == nil && ctx.Err() == nil; n++ {
			_, err = dev.WriteAt([]byte{n}, 0)
		}
		wrote <- err
	}()
	// On a busy machine the writer may stand still for as long as a copy takes.
	for n := range 20 {
		name := fmt.Sprintf("s%d", n)
		if _, err = b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: name, VolumeID: v.ID}); err != nil {
			break
		}
	}
	if !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("a snapshot: %v", err)
	}
	stop()
	if err := errors.Join(<-wrote, dev.Close()); err != nil {
		t.Error(err)
	}
	snap(t, b, "s", v.ID)
	if err := b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: v.ID, State: src.State}); err != nil {
		t.Error(err)
	}
	wantClean(t, o.Pool)
}

// progress is called with each step of an operation.
type progress func()

func (p progress) Progress(string)         { p() }
func (progress) Busy(string) (done func()) { return func() {} }

// TestCopyWhoseSourceWasWritten: a copy that an earlier process did not end is
// dropped when its volume was written to since, and never finished with other
// bytes.
func TestCopyWhoseSourceWasWritten(t *testing.T) {
	img, dir := disk(t, "ext4", "1G")
	mountDisk(t, img, dir)
	o := testOptions(t)
	o.Pool = dir
	r := newRig(t, o)
	work := r.orderFor("snapshot")
	work.KillAt = "loopfile.copy.part"
	runKilled(t, work)
	scribble(t, filepath.Join(dir, volumesDir, dirOf("a"), imgFile), rigSize, 1)
	b := open(t, o)
	if done, _ := b.jobs.get(poolOf(t, b) + ".s." + dirOf("new")); done != nil {
		<-done
	}
	if s, err := b.FindSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "new"}); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("found %+v, %v", s, err)
	}
	wantClean(t, dir)
	// The next one is of this moment.
	s := snap(t, b, "new", r.vols[0])
	if digest(t, snapPath(b, s.ID, r.vols[0]), rigSize) != digest(t, imgPath(b, r.vols[0]), rigSize) {
		t.Error("other bytes")
	}
}

// TestVolumeWhileItIsCopied: it cannot be deleted, grown or opened, and can
// afterwards.
func TestVolumeWhileItIsCopied(t *testing.T) {
	img, dir := disk(t, "ext4", "1G")
	mountDisk(t, img, dir)
	o := testOptions(t)
	o.Pool = dir
	b := openNode(t, o)
	v := create(t, b, "v", rigSize)
	scribble(t, imgPath(b, v.ID), rigSize, 1500)
	hold, held := make(chan struct{}), make(chan struct{})
	b.step = func(s string) {
		if s == "loopfile.copy.start" {
			close(held)
			<-hold
		}
	}
	got := make(chan *backends.Snapshot, 1)
	go func() {
		s, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
		if err != nil {
			t.Error(err)
		}
		got <- s
	}()
	<-held
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("delete: %v", err)
	}
	if _, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 2 * rigSize}); !errors.Is(err, backends.ErrPending) {
		t.Errorf("expand: %v", err)
	}
	if _, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrPending) {
		t.Errorf("open: %v", err)
	}
	s := <-got // CreateSnapshot does not wait for the copy
	if s.Ready {
		t.Error("ready before it is copied")
	}
	if _, err := b.RestoreSnapshot(t.Context(), *s, request("r", rigSize)); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("restore: %v", err)
	}
	close(hold)
	waitReady(t, b, s)
	closeIt(t, b, v.ID, openIt(t, b, v.ID, nil).State)
	remove(t, b, v.ID)
	if _, err := b.Snapshot(t.Context(), backends.SnapshotRequest{ID: s.ID}); err != nil {
		t.Error(err)
	}
}
