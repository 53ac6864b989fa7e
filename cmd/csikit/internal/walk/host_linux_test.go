package walk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestData: what is mounted is looked at, written to and compared.
func TestData(t *testing.T) {
	testenv.Root(t)
	f := everything()
	f.store = t.TempDir()
	f.expansion, f.controller = nil, basicMulti // a directory does not grow
	f.node = f.node[:1:1]
	f.node = append(f.node, multiNode)
	out, err := run(t, f, func(o *Options) { o.NoData, o.SameHost, o.Size = false, true, 0 })
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{"pod-1 wrote data", "pod-2 reads the same", "pod-ro cannot write", "read-only file system"} {
		if !strings.Contains(out, want) {
			t.Errorf("the walk does not show %q", want)
		}
	}
}

var basicMulti = append(basic[:1:1], multiCap)

// TestDataLies: a driver whose second pod gets another volume.
func TestDataLies(t *testing.T) {
	testenv.Root(t)
	f := everything()
	f.store = t.TempDir()
	f.fail = func(m string, n int) error {
		if m == "NodeUnstageVolume" && n == 1 { // between the two lives
			return os.WriteFile(filepath.Join(f.store, "vol", "data"), []byte("other"), 0o600)
		}
		return nil
	}
	_, err := run(t, f, func(o *Options) { o.NoData, o.SameHost, o.Size = false, true, 0 })
	if err == nil || !strings.Contains(err.Error(), "other data than was written") || len(f.volumes)+len(f.places) > 0 {
		t.Errorf("%v, volumes %v, places %v", err, f.volumes, f.places)
	}
}

// TestMountLeft: a mount that stays although the driver said that it is gone
// keeps the volume from being deleted.
func TestMountLeft(t *testing.T) {
	testenv.Root(t)
	f := everything()
	f.node = f.node[1:] // without staging
	left := ""
	f.fail = func(m string, n int) error {
		if m != "NodeGetVolumeStats" {
			return nil
		}
		for p := range f.places {
			if strings.HasSuffix(p, pod2) {
				left = filepath.Join(filepath.Dir(p), "staging")
			}
		}
		if err := os.Mkdir(left, 0o750); err != nil {
			return err
		}
		return mnt.Bind(t.TempDir(), left, mnt.BindOptions{})
	}
	dir := t.TempDir()
	err := Run(t.Context(), Options{Controller: f.start(t), Out: t.Output(), Name: "vol", Dir: dir, NoData: true})
	if err == nil || !strings.Contains(err.Error(), "mounts are left") || !strings.Contains(err.Error(), "something is left below") || len(f.volumes) != 1 {
		t.Errorf("%v, volumes %v", err, f.volumes)
	}
	if _, err := mnt.Unmount(left); err != nil {
		t.Error(err)
	}
}
