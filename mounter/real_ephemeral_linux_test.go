package mounter_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// loopPods makes a file for each ephemeral volume.
type loopPods struct {
	*loopNode
	size  int64
	again []bool
}

func (p *loopPods) CreateEphemeral(_ context.Context, req backends.CreateEphemeralRequest) (*backends.Volume, error) {
	f, err := os.OpenFile(p.file("own-"+req.ID), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return &backends.Volume{ID: "own-" + req.ID}, errors.Join(f.Truncate(p.size), f.Close())
}

func (p *loopPods) DeleteEphemeral(_ context.Context, req backends.DeleteEphemeralRequest) error {
	if err := os.Remove(p.file("own-" + req.ID)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (p *loopPods) PrepareTarget(_ context.Context, req backends.TargetRequest) error {
	p.again = append(p.again, req.Again)
	return nil
}

// TestRealPod: a pod's own volume on a real device, across a restart of the
// driver; what the pod wrote is there until it goes.
func TestRealPod(t *testing.T) {
	testenv.Root(t)
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			n := &loopPods{loopNode: newLoopNode(t), size: 320 * mib}
			r := newRealRig(t, n, n.loopNode)
			req := mounter.PublishRequest{
				ID: "csi-1", Ephemeral: true, Path: r.path("pods/u/mount"),
				Capability: backends.Capability{Mode: backends.SingleNodeWriter, FSType: fsType, Group: "4242"},
			}
			must(t, r.Publish(t.Context(), req))
			must(t, os.WriteFile(r.path("pods/u/mount/file"), []byte("data"), 0o600))
			st, err := os.Stat(r.path("pods/u/mount"))
			must(t, err)
			if st.Sys().(*syscall.Stat_t).Gid != 4242 || st.Mode()&os.ModeSetgid == 0 {
				t.Errorf("mode %v", st.Mode())
			}
			must(t, os.Chmod(r.path("pods/u/mount"), 0o700|os.ModeSetgid)) // the pod's own will
			must(t, r.Close())
			r.start(n)
			must(t, r.Publish(t.Context(), req))
			figures, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "csi-1", Path: req.Path})
			if err != nil || figures.Total == 0 {
				t.Errorf("%+v, %v", figures, err)
			}
			if _, err := mnt.Unmount(req.Path); err != nil {
				t.Fatal(err)
			}
			must(t, r.Publish(t.Context(), req))
			if b, err := os.ReadFile(r.path("pods/u/mount/file")); string(b) != "data" {
				t.Errorf("read %q, %v", b, err)
			}
			if st, err = os.Stat(req.Path); err != nil || st.Mode().Perm() != 0o700 {
				t.Errorf("the root's mode was changed again: %v, %v", st.Mode(), err)
			}
			mounts, err := mnt.At(req.Path)
			must(t, err)
			if len(mounts) != 1 || mounts[0].FSType != fsType || len(n.again) != 3 || n.again[0] || !n.again[1] || n.again[2] {
				t.Errorf("mounts %+v, told %v", mounts, n.again)
			}
			for range 2 {
				must(t, r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "csi-1", Path: req.Path}))
			}
			if _, err := os.Lstat(req.Path); !errors.Is(err, os.ErrNotExist) || len(r.Volumes()) > 0 || len(n.loop) > 0 {
				t.Errorf("left: %v, %v, %v", err, r.Volumes(), n.loop)
			}
			if files, err := os.ReadDir(n.dir); err != nil || len(files) > 0 {
				t.Errorf("volumes are left: %v, %v", files, err)
			}
			if all, err := mnt.List(); err != nil || strings.Contains(mountPoints(all), r.dir) {
				t.Errorf("mounts are left: %v", err)
			}
		})
	}
}

func mountPoints(all []mnt.Info) string {
	var b strings.Builder
	for _, m := range all {
		b.WriteString(m.Point + "\n")
	}
	return b.String()
}
