package lvm

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/fsfreeze"
	"github.com/csikit/csikit/internal/testenv"
)

// TestLeftFrozen: what an earlier process froze, and nobody has thawed, is thawed by
// the next group of it, or the next start; until then its mark is there.
func TestLeftFrozen(t *testing.T) {
	t.Run("group", func(t *testing.T) {
		r := newFreezer(t)
		r.leave()
		if q, err := r.quiesce(); len(q.loose) > 0 || errors.Join(err, q.set.End()) != nil {
			t.Error(err, q.loose, q.set.End())
		}
		r.want(false, false)
	})
	t.Run("group that cannot thaw", func(t *testing.T) {
		r := newFreezer(t)
		r.leave()
		r.kernel.broken = true
		q, err := r.quiesce()
		if err := errors.Join(err, q.set.End()); !errors.Is(err, backends.ErrUnavailable) || !strings.Contains(err.Error(), "fsfreeze --unfreeze "+r.at) {
			t.Error(err)
		}
		r.want(true, true)
		r.b.thawLeft(t.Context())
		r.want(true, true)
		r.kernel.broken = false
		r.b.thawLeft(t.Context())
		r.want(false, false)
	})
	t.Run("by somebody else", func(t *testing.T) {
		r := newFreezer(t)
		if err := fsfreeze.Hold(r.dir); err != nil {
			t.Fatal(err)
		}
		if q, err := r.quiesce(); len(q.loose) != 1 || errors.Join(err, q.set.End()) != nil {
			t.Error(err, q.loose, q.set.End())
		}
		r.b.thawLeft(t.Context())
		r.want(true, false)
	})
}

// TestThawFails: the mark stays for who can thaw, and the log has it.
func TestThawFails(t *testing.T) {
	r := newFreezer(t)
	q, err := r.quiesce()
	if err != nil {
		t.Fatal(err)
	}
	r.kernel.last.Close() // what is left of its ioctls is an error
	if err := q.set.End(); !errors.Is(err, fsfreeze.ErrStill) || !strings.Contains(r.log.String(), "volume may be frozen") {
		t.Errorf("%v; log: %s", err, &r.log)
	}
	r.want(true, true)
	if q, err := r.quiesce(); errors.Join(err, q.set.End()) != nil {
		t.Error(err, q.set.End())
	}
	r.want(false, false)
}

// freezer is a backend with two volumes, of which one is mounted.
type freezer struct {
	t      *testing.T
	b      *Backend
	kernel *brokenFake
	log    bytes.Buffer
	vols   []*volume
	mark   string
	at     string
	dir    *os.File
}

func newFreezer(t *testing.T) *freezer {
	t.Helper()
	r := &freezer{t: t, vols: []*volume{volOf("1"), volOf("2")}, at: ext4At(t)}
	o := testOptions()
	o.Logger = slog.New(slog.NewTextHandler(&r.log, nil))
	r.b = onFake(t, newFake(), o)
	r.kernel = &brokenFake{mountedFake: mountedFake{r.b.kernel, map[string]string{r.vols[0].dmUUID(): r.at}}}
	r.b.kernel, r.mark = r.kernel, r.b.markOf(r.vols[0].dmUUID())
	var err error
	if r.dir, err = os.Open(r.at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(fsfreeze.Thaw(r.dir), r.dir.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *freezer) quiesce() (*quiet, error) { return r.b.quiesce(r.t.Context(), r.vols) }

// leave is what a process leaves that was killed together with its child.
func (r *freezer) leave() {
	r.t.Helper()
	if err := errors.Join(os.WriteFile(r.mark, []byte("x"), 0o600), fsfreeze.Hold(r.dir)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *freezer) want(frozen, marked bool) {
	r.t.Helper()
	if stillFrozen(r.t, r.dir) != frozen {
		r.t.Errorf("frozen: %v", !frozen)
	}
	if fi, err := os.Stat(r.mark); (err == nil) != marked || marked && fi.Size() == 0 {
		r.t.Errorf("the mark: %v, %v", fi, err)
	}
}

// brokenFake is a mountedFake whose mounts can be such that no ioctl succeeds.
type brokenFake struct {
	mountedFake
	broken bool
	last   *os.File // that was opened
}

func (k *brokenFake) mountOf(ctx context.Context, path string) (*os.File, error) {
	dir, err := k.mountedFake.mountOf(ctx, path)
	if dir != nil && k.broken {
		err = dir.Close()
	}
	k.last = dir
	return dir, err
}

func ext4At(t *testing.T) string {
	t.Helper()
	testenv.Root(t)
	testenv.Tool(t, "mkfs.ext4", "mount", "umount", "fsfreeze", "flock")
	dir := t.TempDir()
	img, at := filepath.Join(dir, "img"), filepath.Join(dir, "m")
	if err := errors.Join(os.WriteFile(img, nil, 0o600), os.Truncate(img, 16<<20), os.Mkdir(at, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{{"mkfs.ext4", "-q", img}, {"mount", "-o", "loop", img, at}} {
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v %s", argv, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "umount", at).CombinedOutput(); err != nil {
			t.Errorf("%v %s", err, out)
		}
	})
	return at
}
