package loopfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The formats on disk. A driver must go on reading what an older one wrote: these
// files are added to, never changed.
var (
	goldenMeta = meta{
		Version: 1, ID: "disk1." + dirOf("pvc-ü"), Name: "pvc-ü", Type: typeThick, BlockSize: 4096,
		Size: 1 << 30, Target: 2 << 30, Fingerprint: "1.abc", Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Format: "started", FSType: "xfs", Parameters: map[string]string{"type": "thick", "blockSize": "4096"},
	}
	goldenMeta2 = meta{
		Version: 2, ID: "disk1." + dirOf("pvc-2"), Name: "pvc-2", Type: typeThin, BlockSize: 512, Size: 1 << 20,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Format: "done", FSType: "btrfs",
		Source: &origin{SnapshotID: "disk1.s." + dirOf("snap")}, Ephemeral: "csi-1",
	}
	goldenMeta3 = meta{
		Version: 3, ID: "disk1." + dirOf("pvc-3"), Name: "pvc-3", Type: typeThick, BlockSize: 512, Size: 1 << 20, Fingerprint: "1.abc",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Format: "never",
		Mutable: map[string]string{"read-bps": "10Mi", "write-iops": "max"},
	}
	goldenMeta4 = meta{
		Version: 4, ID: "disk1." + dirOf("pvc-4"), Name: "pvc-4", Type: typeThin, BlockSize: 512, Size: 1 << 30,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Format: "done", FSType: "ext4",
		Parameters: map[string]string{"encrypted": "true"},
	}
	goldenMeta5 = meta{
		Version: 5, ID: "disk1." + dirOf("pvc-5"), Name: "pvc-5", Type: typeThin, BlockSize: 512, Size: 1 << 30,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Format: "raw",
		Attached: &attachment{Node: "node-1", ReadOnly: true, Mode: "SINGLE_NODE_MULTI_WRITER", Block: true},
	}
	goldenSet = setMeta{
		Version: 1, ID: "disk1.g." + dirOf("group"), Name: "group", Fingerprint: "1.abc",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		Members: []member{
			{VolumeID: "disk1." + dirOf("a"), Size: 1 << 30, Type: typeThick, BlockSize: 4096, Format: "done", FSType: "xfs"},
			{VolumeID: "disk1." + dirOf("b"), Size: 1 << 20, Type: typeThin, BlockSize: 512, Format: "raw", Copy: &copied{
				Done: 4096, Inode: 12, Changed: time.Date(2026, 1, 2, 3, 4, 5, 7, time.UTC),
			}},
		},
	}
	goldenPool  = PoolInfo{Version: 1, ID: "abcdefghijklmnopqrstuvwxyz", Name: "disk1", FSType: "xfs", FSID: "0000070000000000"}
	goldenState = state{Version: 1, Loop: "/dev/loop7", DiskSeq: 42, Dev: 2049, Ino: 12}
)

func TestGoldenMeta(t *testing.T) {
	for file, want := range map[string]meta{"meta-v1.json": goldenMeta, "meta-v2.json": goldenMeta2, "meta-v3.json": goldenMeta3, "meta-v4.json": goldenMeta4, "meta-v5.json": goldenMeta5} {
		got, err := decodeMeta(golden(t, file), want.ID)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("read %+v, %v\nwant %+v", got, err, want)
		}
		wantWritten(t, file, func(root *os.Root) error { return writeMeta(root, &want) })
	}
	// An older driver may drop nothing: what is new is in the newer version alone.
	for version, id := range map[int]string{2: goldenMeta2.ID, 3: goldenMeta3.ID, 4: goldenMeta4.ID, 5: goldenMeta5.ID} {
		mixed := strings.Replace(string(golden(t, fmt.Sprintf("meta-v%d.json", version))), fmt.Sprintf(`"version": %d`, version), fmt.Sprintf(`"version": %d`, version-1), 1)
		if m, err := decodeMeta([]byte(mixed), id); !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("read %+v, %v", m, err)
		}
	}
	bad := strings.Replace(string(golden(t, "meta-v3.json")), "10Mi", "1", 1)
	if m, err := decodeMeta([]byte(bad), goldenMeta3.ID); !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrInvalid) {
		t.Errorf("read %+v, %v", m, err)
	}
}

func TestGoldenSet(t *testing.T) {
	want := string(golden(t, "set-v1.json"))
	got, err := decodeSet([]byte(want), goldenSet.ID, true)
	if err != nil || !reflect.DeepEqual(*got, goldenSet) {
		t.Errorf("read %+v, %v\nwant %+v", got, err, goldenSet)
	}
	wantWritten(t, "set-v1.json", func(root *os.Root) error { return writeJSON(root, &goldenSet) })
	for what, bad := range map[string]struct {
		text string
		kind error
	}{
		"newer":   {strings.Replace(want, `"version": 1`, `"version": 2`, 1), backends.ErrPrecondition},
		"torn":    {want[:100], backends.ErrUnavailable},
		"unknown": {strings.Replace(want, `"name"`, `"x": 1, "name"`, 1), backends.ErrUnavailable},
		"renamed": {strings.Replace(want, `"group"`, `"other"`, 1), backends.ErrUnavailable},
		"trailer": {want + "{}", backends.ErrUnavailable},
	} {
		if m, err := decodeSet([]byte(bad.text), goldenSet.ID, true); !errors.Is(err, bad.kind) || errors.Is(err, backends.ErrNotFound) {
			t.Errorf("%s: %+v, %v", what, m, err)
		}
	}
	if _, err := decodeSet([]byte(want), goldenSet.ID, false); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("two members of a snapshot: %v", err)
	}
}

// wantWritten compares what write writes with a golden file.
func wantWritten(t *testing.T, file string, write func(root *os.Root) error) {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if err := write(root); err != nil {
		t.Fatal(err)
	}
	if b, err := root.ReadFile(metaFile); err != nil || string(b) != string(golden(t, file)) {
		t.Errorf("wrote %s, %v", b, err)
	}
}

func TestGoldenPool(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if err := makePool(root, goldenPool); err != nil {
		t.Fatal(err)
	}
	if b, err := root.ReadFile(poolFile); err != nil || string(b) != string(golden(t, "pool-v1.json")) {
		t.Errorf("wrote %s, %v", b, err)
	}
	if got, err := readPoolInfo(dir, root); err != nil || got != goldenPool {
		t.Errorf("read %+v, %v", got, err)
	}
	newer := strings.Replace(string(golden(t, "pool-v1.json")), `"version": 1`, `"version": 2`, 1)
	if err := root.WriteFile(poolFile, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Pool: dir, Node: "n", AllowRootFS: true}); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a pool of a newer driver: %v", err)
	}
}

func TestGoldenState(t *testing.T) {
	want := strings.TrimSpace(string(golden(t, "state-v1.json")))
	if b, err := goldenState.encode(); err != nil || string(b) != want {
		t.Errorf("wrote %s, %v", b, err)
	}
	if got, err := decodeState([]byte(want)); err != nil || *got != goldenState {
		t.Errorf("read %+v, %v", got, err)
	}
	if _, err := decodeState([]byte(strings.Replace(want, `"version":1`, `"version":2`, 1))); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("newer: %v", err)
	}
	if _, err := decodeState([]byte(want[:10])); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("torn: %v", err)
	}
	if !json.Valid([]byte(want)) {
		t.Error("no JSON")
	}
}

// FuzzDecodeMeta: whatever stands in the file, it is a meta of this volume or an
// error with a kind.
func FuzzDecodeMeta(f *testing.F) {
	for _, s := range []string{"", "{}", `{"version":1}`, `{"version":2}`, "null", "[]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b, goldenMeta.ID)
		switch {
		case err == nil && (m.ID != goldenMeta.ID || m.Size <= 0):
			t.Errorf("accepted %+v", m)
		case err != nil && !errors.Is(err, backends.ErrUnavailable) && !errors.Is(err, backends.ErrPrecondition):
			t.Errorf("no kind: %v", err)
		case errors.Is(err, backends.ErrNotFound):
			t.Errorf("not found: %v", err)
		}
	})
}
