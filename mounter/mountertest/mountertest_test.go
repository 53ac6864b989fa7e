package mountertest_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/deptest"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
)

type oneDisk struct{}

func (oneDisk) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	return &backends.Source{Device: &backends.Device{Path: "/dev/disk", Identity: backends.Identity{Serial: req.ID, Size: 2 << 30}}}, nil
}

func (oneDisk) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

// TestDiskOnDemand: a test of a driver need not know which devices it names.
func TestDiskOnDemand(t *testing.T) {
	e := mountertest.New(t, oneDisk{}, nil)
	req := mounter.StageRequest{ID: "a", Path: filepath.Join(t.TempDir(), "s"), Capability: backends.Capability{Mode: backends.SingleNodeWriter}}
	if err := e.Stage(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	st, err := e.Stats(t.Context(), mounter.StatsRequest{ID: "a", Path: req.Path})
	if err != nil || st.Total != 2<<30 {
		t.Errorf("%+v, %v", st, err)
	}
	if m := e.Kernel.Mounts(); len(m) != 1 || m[0].FSType != "ext4" || m[0].Point != req.Path {
		t.Errorf("mounts %+v", m)
	}
	// From then on it is that disk, and no other.
	req.ID, req.Path = "b", req.Path+"-2"
	if err := e.Stage(t.Context(), req); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("got %v", err)
	}
}

func TestFaultsAndLog(t *testing.T) {
	e := mountertest.New(t, oneDisk{}, nil)
	e.Kernel.Fail("Mount", 1, backends.ErrInUse)
	req := mounter.StageRequest{ID: "a", Path: filepath.Join(t.TempDir(), "s"), Capability: backends.Capability{Mode: backends.SingleNodeWriter}}
	if err := e.Stage(t.Context(), req); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("got %v", err)
	}
	if err := e.Stage(t.Context(), req); err != nil {
		t.Errorf("the fault stayed: %v", err)
	}
	want := []string{"mkfs.ext4 /dev/disk", "mount ext4 /dev/disk " + req.Path, "mount ext4 /dev/disk " + req.Path}
	log := e.Kernel.Log()
	if len(log) != len(want) {
		t.Fatalf("log %v", log)
	}
	for i := range want {
		if log[i] != want[i] {
			t.Errorf("log %v, want %v", log, want)
		}
	}
	e.Kernel.Reboot()
	if err := e.Restart(); err != nil || len(e.Kernel.Mounts()) != 0 {
		t.Errorf("after a reboot: %v, %v", err, e.Kernel.Mounts())
	}
}

func TestDependencies(t *testing.T) {
	deptest.Never(t, map[string]string{
		"google.golang.org/grpc": "tests of a backend need no server",
		"k8s.io/mount-utils":     "the fake is our own",
	})
}
