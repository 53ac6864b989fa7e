package loopfile

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/csikit/csikit/backends"
)

func TestKilledCreate(t *testing.T) {
	for step, made := range map[string]bool{
		"loopfile.create.mkdir": false, "loopfile.create.allocated": false, "loopfile.create.filled": false, "loopfile.create.built": false,
		"loopfile.appear.renamed": true, "loopfile.create.synced": true,
	} {
		t.Run(step, func(t *testing.T) {
			o := testOptions(t)
			needThick(t, o)
			if _, err := InitPool(o.Pool, &PoolOptions{AllowRootFS: true}); err != nil {
				t.Fatal(err)
			}
			runKilled(t, order{Pool: o.Pool, Op: "create", Name: "v", Size: 4 * mib, Type: typeThick, KillAt: step})
			if !made && len(entries(t, o.Pool, tmpDir)) == 0 {
				t.Error("nothing was left in .tmp: the step proves nothing")
			}
			b := open(t, o)
			wantClean(t, o.Pool)
			got, err := b.FindVolume(t.Context(), request("v", 4*mib))
			if made {
				if err != nil || got.Capacity != 4*mib {
					t.Errorf("find: %+v, %v", got, err)
				}
				return
			}
			if !notFoundIs(err, "v") || len(list(t, b, 10)) != 0 {
				t.Errorf("a half-made volume shows: %+v, %v", got, err)
			}
			create(t, b, "v", 4*mib)
		})
	}
}

func TestKilledDelete(t *testing.T) {
	for step, gone := range map[string]bool{"loopfile.delete.idle": false, "loopfile.delete.renamed": true, "loopfile.delete.purge": true} {
		t.Run(step, func(t *testing.T) {
			o := testOptions(t)
			b := open(t, o)
			v := create(t, b, "v", 4*mib, paramType, typeThin)
			if err := os.WriteFile(imgPath(b, v.ID), bytes.Repeat([]byte("d"), 4*mib), 0o600); err != nil {
				t.Fatal(err)
			}
			_ = b.Close()
			runKilled(t, order{Pool: o.Pool, Op: "delete", ID: v.ID, KillAt: step})
			b = open(t, o)
			wantClean(t, o.Pool)
			_, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID})
			if gone {
				if !notFoundIs(err, v.ID) {
					t.Errorf("get: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(imgPath(b, v.ID)); err != nil || !bytes.Equal(data, bytes.Repeat([]byte("d"), 4*mib)) {
				t.Errorf("data is lost: %d bytes, %v", len(data), err)
			}
			remove(t, b, v.ID)
		})
	}
}

func TestKilledExpand(t *testing.T) {
	for _, step := range []string{"loopfile.expand.target", "loopfile.expand.allocated", "loopfile.expand.grown"} {
		t.Run(step, func(t *testing.T) {
			o := testOptions(t)
			needThick(t, o)
			b := open(t, o)
			v := create(t, b, "v", 4*mib)
			data := bytes.Repeat([]byte("data"), mib)
			f, err := os.OpenFile(imgPath(b, v.ID), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(data); err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
			_ = b.Close()
			runKilled(t, order{Pool: o.Pool, Op: "expand", ID: v.ID, Size: 12 * mib, KillAt: step})
			b = open(t, o)
			got, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID})
			if err != nil || got.Capacity != 12*mib {
				t.Errorf("not finished at start: %+v, %v", got, err)
			}
			fi := stat(t, imgPath(b, v.ID))
			if fi.Size() != 12*mib || allocated(fi) < fi.Size() {
				t.Errorf("%d bytes, %d allocated", fi.Size(), allocated(fi))
			}
			if all, err := os.ReadFile(imgPath(b, v.ID)); err != nil || !bytes.Equal(all[:4*mib], data) {
				t.Errorf("data is lost: %v", err)
			}
			p, done, err := b.enter(0)
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			if vol, err := p.volume(dirOf("v")); err != nil || vol.meta.Target != 0 || vol.meta.Size != 12*mib {
				t.Errorf("meta: %+v, %v", vol, err)
			}
		})
	}
}

// TestKilledAnywhere kills a busy driver at moments that nobody chose.
func TestKilledAnywhere(t *testing.T) {
	o := testOptions(t)
	needThick(t, o)
	b := open(t, o)
	kept := create(t, b, "kept", mib)
	_ = b.Close()
	for range 15 {
		n := 1 + rand.IntN(60)
		runUntil(t, order{Pool: o.Pool, Op: "churn", Name: "v"}, n)
		b = open(t, o)
		wantClean(t, o.Pool)
		ids := list(t, b, 3)
		for _, id := range ids {
			v, err := b.Volume(t.Context(), backends.VolumeRequest{ID: id})
			if err != nil {
				t.Fatalf("killed after %d lines: %v", n, err)
			}
			if fi := stat(t, imgPath(b, id)); fi.Size() != v.Capacity || allocated(fi) < fi.Size() || fi.Size()%mib != 0 {
				t.Errorf("killed after %d lines: %s has %d bytes, %d allocated, capacity %d", n, id, fi.Size(), allocated(fi), v.Capacity)
			}
			if id != kept.ID {
				remove(t, b, id)
			}
		}
		if len(list(t, b, 3)) != 1 {
			t.Fatalf("killed after %d lines: %q", n, ids)
		}
		_ = b.Close()
	}
}

func TestTwoDrivers(t *testing.T) {
	o := testOptions(t)
	b := open(t, o)
	_, err := New(o)
	want := fmt.Sprintf("pid %d", os.Getpid())
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
		t.Fatalf("second driver: %v, want an error that names %s", err, want)
	}
	_ = b.Close()
	// One half each is no conflict.
	ctrl, node := o, o
	ctrl.Half, node.Half = ControllerHalf, NodeHalf
	c := open(t, ctrl)
	n, err := New(node)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	v := create(t, c, "v", mib, paramType, typeThin)
	if _, err := n.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil {
		t.Errorf("the node half reads: %v", err)
	}
	if _, err := n.CreateVolume(t.Context(), request("w", mib)); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("the node half creates: %v", err)
	}
	if _, err := New(ctrl); err == nil {
		t.Error("two controllers")
	}
}

func TestInitPool(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	o := &PoolOptions{AllowRootFS: true, Name: "disk1"}
	first, err := InitPool(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := InitPool(dir, o); err != nil || again != first {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := InitPool(dir, &PoolOptions{AllowRootFS: true, Name: "disk2"}); !errors.Is(err, backends.ErrIncompatible) {
		t.Errorf("another name: %v", err)
	}
	if _, err := InitPool(dir, &PoolOptions{Name: "No Good"}); !errors.Is(err, backends.ErrInvalid) {
		t.Errorf("bad name: %v", err)
	}
	// A killed init is made good; somebody's files are left alone.
	if err := os.Remove(filepath.Join(dir, poolFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := InitPool(dir, o); err != nil {
		t.Errorf("after a killed init: %v", err)
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := InitPool(full, o); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("somebody's directory: %v", err)
	}
	if left := entries(t, full, "."); len(left) != 1 {
		t.Errorf("made in somebody's directory: %q", left)
	}
}
