package lvm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/csikit/csikit/backends"
)

// TestMarks: a mark has one owner, who removes it; who waits for it has one that is
// there, and a start leaves it to its owner.
func TestMarks(t *testing.T) {
	o := testOptions()
	o.FreezeLimit = 1
	b := onFake(t, newFake(), o)
	const uuid = "LVM-1"
	path := b.markOf(uuid)
	first, err := b.markFrozen(t.Context(), uuid, nil)
	if err != nil {
		t.Fatal(err)
	}
	wait, cancel := b.waiting(t.Context())
	defer cancel()
	if m, err := b.markFrozen(wait, uuid, nil); !errors.Is(err, backends.ErrPending) {
		t.Errorf("a second owner: %v, %v", m, err)
	}
	b.thawLeft(t.Context())
	if _, err := os.Stat(path); err != nil {
		t.Errorf("after a start: %v", err)
	}
	got := make(chan *mark, 1)
	go func() {
		m, err := lockMark(context.WithoutCancel(t.Context()), path, os.O_CREATE)
		if err != nil {
			t.Error(err)
		}
		got <- m
	}()
	if err := first.remove(); err != nil {
		t.Fatal(err)
	}
	next := <-got
	if next == nil {
		t.FailNow()
	}
	if m, err := tryMark(path, 0); m != nil || err != nil {
		t.Errorf("who has waited has no mark: %v, %v", m, err)
	}
	if err := next.file.Close(); err != nil { // as with the end of its process
		t.Fatal(err)
	}
	b.watches.Wait()
	b.thawLeft(t.Context())
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a process that has died: %v", err)
	}
}

// TestMarksOneOwner: whoever comes while a mark is removed and let go of, there is one
// owner at a time.
func TestMarksOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	var owners atomic.Int32
	own := func() error {
		m, err := lockMarkNow(path)
		if err != nil {
			return err
		}
		if n := owners.Add(1); n != 1 {
			t.Errorf("%d owners", n)
		}
		owners.Add(-1)
		return m.remove()
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 300 {
				if err := own(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// lockMarkNow is lockMark without a pause.
func lockMarkNow(path string) (m *mark, err error) {
	for m == nil && err == nil {
		m, err = tryMark(path, os.O_CREATE)
	}
	return m, err
}

// TestMarksLeft: a start removes the mark of what is not active, or was not frozen yet;
// it leaves that of what is not mounted for this process, and those of other drivers.
func TestMarksLeft(t *testing.T) {
	b := onFake(t, newFake(), testOptions())
	b.kernel = &mountedFake{b.kernel, map[string]string{"LVM-unseen": ""}}
	other := testOptions()
	other.Driver += ".other"
	others := onFake(t, newFake(), other)
	others.marks = b.marks
	left := map[string]string{
		b.markOf("LVM-gone"): "x", b.markOf("LVM-unseen"): "x", b.markOf("LVM-before"): "", others.markOf("LVM-gone"): "x",
	}
	for path, content := range left {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.thawLeft(t.Context())
	for path := range left {
		want := path == b.markOf("LVM-unseen") || path == others.markOf("LVM-gone")
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestNoneFrozenWhileWaiting: while one member's mark is somebody else's, the others can
// be written to.
func TestNoneFrozenWhileWaiting(t *testing.T) {
	o := testOptions()
	o.FreezeLimit = 1
	b := onFake(t, newFake(), o)
	vols := []*volume{volOf("2"), volOf("1")}
	b.kernel = &mountedFake{b.kernel, map[string]string{vols[0].dmUUID(): "/proc", vols[1].dmUUID(): "/proc"}}
	b.step = func(at string) { t.Error(at) }
	for _, v := range vols {
		theirs, err := lockMarkNow(b.markOf(v.dmUUID()))
		if err != nil {
			t.Fatal(err)
		}
		q, err := b.quiesce(t.Context(), vols)
		if err := errors.Join(err, q.set.End()); !errors.Is(err, backends.ErrPending) {
			t.Error(err)
		}
		if err := theirs.remove(); err != nil {
			t.Fatal(err)
		}
		if left, err := filepath.Glob(b.markOf("*")); len(left) > 0 || err != nil {
			t.Error(left, err)
		}
	}
}

// mountedFake has LVs that are active, by UUID, and mounted at a directory or nowhere
// that this process sees.
type mountedFake struct {
	kernel
	at map[string]string
}

func (m *mountedFake) device(uuid string) (string, error) {
	if _, active := m.at[uuid]; !active {
		return "", nil
	}
	return "/dev/" + uuid, nil
}

func (m *mountedFake) mountOf(_ context.Context, path string) (*os.File, error) {
	if dir := m.at[filepath.Base(path)]; dir != "" {
		return os.Open(dir)
	}
	return nil, nil
}

func volOf(uuid string) *volume {
	v := &volume{g: &group{uuid: "g"}, own: &meta{Class: "linear"}}
	v.uuid, v.name = uuid, "pvc-"+uuid
	return v
}
