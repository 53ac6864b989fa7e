package loopfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/fsfreeze"
)

// frozenRig is a volume that is mounted, in a pool with reflinks.
type frozenRig struct {
	o    Options
	b    *Backend
	v    *backends.Volume
	dir  *os.File
	mark string
}

func newFrozenRig(t *testing.T) *frozenRig {
	t.Helper()
	img, pool := disk(t, "xfs", "1G")
	mountDisk(t, img, pool)
	r := &frozenRig{o: testOptions(t)}
	r.o.Pool = pool
	r.b = openNode(t, r.o)
	r.v = create(t, r.b, "v", 32*mib, paramType, typeThin)
	r.mark = filepath.Join(filepath.Dir(imgPath(r.b, r.v.ID)), frozenFile)
	at := mountVolume(t, r.b, r.v.ID, "ext4", true)
	var err error
	if r.dir, err = os.Open(at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(fsfreeze.Thaw(r.dir), r.dir.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *frozenRig) wantThawed(t *testing.T) {
	t.Helper()
	if err := errors.Join(fsfreeze.Hold(r.dir), fsfreeze.Thaw(r.dir)); err != nil {
		t.Errorf("still frozen: %v", err)
	}
	r.wantMark(t, false)
}

func (r *frozenRig) wantMark(t *testing.T, there bool) {
	t.Helper()
	if _, err := os.Stat(r.mark); (err == nil) != there {
		t.Errorf("the mark: %v", err)
	}
}

// TestLeftFrozen: what an earlier process froze, and nobody has thawed, is thawed by the
// next snapshot of it.
func TestLeftFrozen(t *testing.T) {
	r := newFrozenRig(t)
	if err := errors.Join(os.WriteFile(r.mark, nil, 0o600), fsfreeze.Hold(r.dir)); err != nil {
		t.Fatal(err)
	}
	snap(t, r.b, "s", r.v.ID)
	r.wantThawed(t)
}

// TestLeftFrozenUnseen: a start that does not see the mount leaves the mark; one that
// finds no device of the volume removes it.
func TestLeftFrozenUnseen(t *testing.T) {
	o := testOptions(t)
	node := o
	node.Half = NodeHalf
	ctrl := open1(t, o)
	v := create(t, ctrl, "v", 8*mib, paramType, typeThin)
	b := openNode(t, node)
	r := &frozenRig{mark: filepath.Join(filepath.Dir(imgPath(b, v.ID)), frozenFile)}
	src := openIt(t, b, v.ID, nil)
	if err := os.WriteFile(r.mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctrl.Close()
	ctrl = open1(t, o)
	r.wantMark(t, true)
	ctrl.Close()
	closeIt(t, b, v.ID, src.State)
	open1(t, o)
	r.wantMark(t, false)
}

// TestThawedMeanwhile: by an administrator, or a guest agent; before the cut or after
// it, which nobody can tell apart.
func TestThawedMeanwhile(t *testing.T) {
	r := newFrozenRig(t)
	for _, step := range []string{"loopfile.cut.quiet", "loopfile.cut.cut"} {
		r.b.step = func(at string) {
			if at != step {
				return
			}
			if err := fsfreeze.Hold(r.dir); !errors.Is(err, unix.EBUSY) {
				t.Errorf("%s: not frozen: %v", step, err)
			}
			if err := fsfreeze.Thaw(r.dir); err != nil {
				t.Error(err)
			}
		}
		req := backends.CreateSnapshotRequest{Name: "s", VolumeID: r.v.ID}
		if s, err := r.b.CreateSnapshot(t.Context(), req); !errors.Is(err, backends.ErrUnavailable) || !strings.Contains(err.Error(), "somebody else") {
			t.Errorf("%s: %+v, %v", step, s, err)
		}
		if _, err := r.b.FindSnapshot(t.Context(), req); !errors.Is(err, backends.ErrNotFound) {
			t.Errorf("%s: it is there: %v", step, err)
		}
		wantClean(t, r.o.Pool)
		r.wantThawed(t)
	}
	r.b.step = func(string) {}
	snap(t, r.b, "s", r.v.ID)
}
