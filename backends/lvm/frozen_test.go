package lvm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
	path := filepath.Join(b.marks, frozenMark+uuid)
	first, err := b.markFrozen(t.Context(), uuid)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := b.markFrozen(t.Context(), uuid); !errors.Is(err, backends.ErrPending) {
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
