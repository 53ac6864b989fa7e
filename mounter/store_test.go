package mounter

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

func openTestStore(t *testing.T, dir string) *store {
	t.Helper()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() }) // some tests close it themselves
	return s
}

func TestStoreKeepsRecords(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir)
	for _, r := range forms() {
		if err := s.put(r); err != nil {
			t.Fatal(err)
		}
	}
	want := s.of("vol-1")
	if len(want) != 2 || want[0].Kind != kindStage {
		t.Fatalf("%d records", len(want))
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir)
	if got := s.of("vol-1"); len(got) != 2 || string(got[0].State) != string(want[0].State) {
		t.Errorf("read back %+v", got)
	}
	for _, r := range append(s.of("vol-1"), s.of("csi-0123")...) {
		if err := s.remove(r); err != nil {
			t.Fatal(err)
		}
		if err := s.remove(r); err != nil {
			t.Errorf("remove again: %v", err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestStoreWritesOver: what one record leaves another one gets, each with its own
// content, also after a restart that found spares.
func TestStoreWritesOver(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir)
	all := forms()
	for range 3 {
		for _, r := range all {
			if err := s.put(r); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range all {
			if err := s.remove(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := len(s.spares)
	if n == 0 || n > 2*len(all) {
		t.Errorf("%d spares of %d records", n, len(all))
	}
	seen := map[string]bool{}
	for _, path := range s.spares {
		if seen[path] {
			t.Errorf("%s is a spare twice", path)
		}
		seen[path] = true
	}
	want := all["stage-ready-device"]
	if err := s.put(want); err != nil {
		t.Fatal(err)
	}
	if err := s.lock.Close(); err != nil { // as a killed process does
		t.Fatal(err)
	}
	s = openTestStore(t, dir)
	if got := s.get(kindStage, want.Volume, want.Path); got == nil || string(got.State) != string(want.State) {
		t.Errorf("read back %+v", got)
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != 1 {
		t.Errorf("after a restart: %v, %v", left, err)
	}
}

// TestStoreIsPrivate: nobody else reads or writes records, and a copy in hand
// does not change them.
func TestStoreIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	if err := makeStateDir(dir); err != nil {
		t.Fatal(err)
	}
	s := openTestStore(t, dir)
	r := forms()["stage-ready-device"]
	if err := s.put(r); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]os.FileMode{dir: 0o700, s.dir: 0o700, filepath.Join(s.dir, r.name()): 0o600, filepath.Join(dir, "lock"): 0o600} {
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", file, st.Mode(), err, want)
		}
	}
	c := s.get(kindStage, r.Volume, r.Path)
	c.Device.Path, c.Format.State, c.State[0] = "/dev/other", "x", 9
	r.Mounted.Dev = 1
	again := s.get(kindStage, r.Volume, r.Path)
	if again.Device.Path != "/dev/loop7" || again.Format.State != formatDone || again.State[0] != 0 || again.Mounted.Dev == 1 {
		t.Errorf("the record changed: %+v", again)
	}
}

// TestStoreRefusesWhatItCannotRead: that volume, and no other.
func TestStoreRefusesWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir)
	torn, good := forms()["stage-ready-device"], forms()["stage-ready-dir"]
	torn.Volume = "torn"
	for _, r := range []*record{torn, good} {
		if err := s.put(r); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(s.dir, torn.name())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(file, []byte(`{"version": 99}`), 0o600))
	must(os.WriteFile(filepath.Join(s.dir, tmpPrefix+"123"), []byte("cut short"), 0o600))
	must(os.WriteFile(filepath.Join(s.dir, "README"), []byte("of an administrator"), 0o600))
	must(s.close())

	s = openTestStore(t, dir)
	err := s.refused("torn")
	if !errors.Is(err, backends.ErrPrecondition) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("got %v", err)
	}
	if err := s.refused(good.Volume); err != nil {
		t.Errorf("the other volume: %v", err)
	}
	if len(s.unreadable()) != 1 || s.get(kindStage, "torn", torn.Path) != nil || s.get(kindStage, good.Volume, good.Path) == nil {
		t.Errorf("read %+v", s.records)
	}
	if _, err := os.Stat(filepath.Join(s.dir, tmpPrefix+"123")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a file that was never a record is left")
	}
	if _, err := os.Stat(filepath.Join(s.dir, "README")); err != nil {
		t.Error("a file that is nobody's record is gone")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != `{"version": 99}` {
		t.Error("the record that was refused was changed")
	}
}

func TestOneEngineForAStateDir(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir)
	_, err := openStore(dir)
	if !errors.Is(err, backends.ErrPrecondition) || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v", err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	openTestStore(t, dir)
}

// TestStoreWriteFails: what could not be made durable is not believed.
func TestStoreWriteFails(t *testing.T) {
	s := openTestStore(t, t.TempDir())
	r := forms()["stage-opening"]
	dir := s.dir
	s.dir = filepath.Join(dir, "gone")
	if err := s.put(r); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if s.get(kindStage, r.Volume, r.Path) != nil {
		t.Error("it is in memory all the same")
	}
	r.Phase = "melting"
	s.dir = dir
	if err := s.put(r); err == nil {
		t.Error("a record that nobody could read was written")
	}
}
