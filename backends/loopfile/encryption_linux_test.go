package loopfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/luks"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

// TestEncryptedInVM: an encrypted volume's life, with a snapshot, a restored copy
// beside it, growth and another key.
func TestEncryptedInVM(t *testing.T) {
	if !testenv.InVM(t, "2G") {
		return
	}
	o := testOptions(t)
	o.Pool = t.TempDir()
	run(t, "mkfs.xfs", "-q", "/dev/ubdb")
	run(t, "mount", "/dev/ubdb", o.Pool)
	t.Cleanup(func() { run(t, "umount", o.Pool) })
	run(t, "modprobe", "dm-crypt")
	b := open(t, o)
	dir := t.TempDir()
	e := engine(t, b, filepath.Join(dir, "state"))
	defer func() { _ = e.Close() }()

	stage := func(id string, keys ...string) (string, error) {
		secrets := map[string]string{}
		for i, k := range keys {
			secrets[[]string{luks.SecretKey, luks.SecretPreviousKey}[i]] = k
		}
		path := filepath.Join(dir, id)
		return path, e.Stage(t.Context(), mounter.StageRequest{
			ID: id, Path: path, Capability: backends.Capability{Mode: backends.SingleNodeWriter, FSType: "ext4"}, Secrets: backends.NewSecrets(secrets),
		})
	}
	unstage := func(id string) {
		t.Helper()
		if err := e.Unstage(t.Context(), mounter.UnstageRequest{ID: id, Path: filepath.Join(dir, id)}); err != nil {
			t.Fatal(err)
		}
	}
	v := create(t, b, "v", 128*mib, luks.Param, "true", paramType, typeThin)
	if _, err := stage(v.ID); !errors.Is(err, backends.ErrUnauthenticated) {
		t.Errorf("without a key: %v", err)
	}
	path, err := stage(v.ID, "key-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "f"), []byte("the plain words"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Not written out: the freeze has to find the file system inside.
	snap, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
	if err != nil {
		t.Fatal(err)
	}
	plain := request("w0", 128*mib, paramType, typeThin)
	if _, err := b.RestoreSnapshot(t.Context(), *snap, plain); !errors.Is(err, backends.ErrInvalid) {
		t.Errorf("a plain copy of an encrypted volume: %v", err)
	}
	encrypted := request("w", 256*mib, luks.Param, "true", paramType, typeThin)
	w, err := b.RestoreSnapshot(t.Context(), *snap, encrypted)
	if err != nil {
		t.Fatal(err)
	}
	copied, err := stage(w.ID, "key-2", "key-1")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(copied, "f")); err != nil || string(got) != "the plain words" {
		t.Errorf("in the copy: %q, %v", got, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(copied, &st); err != nil || grown(&st) < 200*mib {
		t.Errorf("the copy has %d bytes, %v", grown(&st), err)
	}
	unstage(w.ID)
	unstage(v.ID)
	if _, err := stage(w.ID, "key-1"); !errors.Is(err, backends.ErrUnauthenticated) {
		t.Errorf("with the key that was replaced: %v", err)
	}
	img, err := os.ReadFile(imgPath(b, v.ID))
	if err != nil || bytes.Contains(img, []byte("the plain words")) {
		t.Errorf("it is not encrypted, %v", err)
	}
	for _, id := range []string{v.ID, w.ID} {
		if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: id}); err != nil {
			t.Error(err)
		}
	}
}
