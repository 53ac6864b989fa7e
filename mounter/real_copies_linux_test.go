package mounter_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

// TestRealClone: copies of a volume have its UUID. They are mounted at once, each is
// written to, and each finds its own again, in any order, also after a restart of
// the driver.
func TestRealClone(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			r.formatted("a", fsType)
			run(t, "cp", "--sparse=always", n.file("a"), n.file("b"))
			r.stage("a", fsType)
			must(t, os.WriteFile(r.path("staging-a/more"), []byte("more"), 0o600))
			run(t, "sync", r.path("staging-a/more"))
			run(t, "cp", "--sparse=always", n.file("a"), n.file("c")) // in use, and bigger
			must(t, os.Truncate(n.file("c"), 640*mib))
			all := []string{"a", "b", "c"}
			for _, id := range all {
				r.stage(id, "")
				must(t, os.WriteFile(r.path("staging-"+id+"/own"), []byte(strings.Repeat(id, 100_000)), 0o600))
			}
			must(t, r.Close())
			r.start(n)
			for _, order := range [][]string{{"a", "b", "c"}, {"c", "b", "a"}, {"b", "a", "c"}} {
				for _, id := range order {
					r.stage(id, "")
				}
				run(t, "sync")
				for _, id := range all {
					b, err := os.ReadFile(r.path("staging-" + id + "/own"))
					if string(b) != strings.Repeat(id, 100_000) {
						t.Errorf("%s holds %d bytes %.5q, %v", id, len(b), b, err)
					}
					must(t, os.WriteFile(r.path("staging-"+id+"/own"), b, 0o600))
				}
				if st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "c", Path: r.path("staging-c")}); err != nil || st.Total < 480*mib {
					t.Errorf("the bigger copy has %+v, %v", st, err)
				}
				for _, id := range order {
					r.unstage(id)
				}
			}
			for _, id := range all {
				r.gone(id)
				r.checked(id, fsType)
			}
		})
	}
}

// TestRealBtrfsStale: the kernel remembers what was on a device number before.
func TestRealBtrfsStale(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	r.formatted("a", "btrfs")
	run(t, "cp", "--sparse=always", n.file("a"), n.file("b"))
	r.stage("a", "")
	// What has gone since was the first of two devices.
	n.make("x", 320*mib)
	n.make("y", 320*mib)
	for _, id := range []string{"x", "y"} {
		_, err := n.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: id})
		must(t, err)
	}
	path := n.loop["x"].Path
	run(t, "mkfs.btrfs", "-f", "-q", path, n.loop["y"].Path)
	run(t, "btrfs", "device", "scan", path, n.loop["y"].Path)
	for _, id := range []string{"x", "y"} {
		must(t, n.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: id}))
	}
	r.stage("b", "")
	if n.loop["b"].Path != path {
		t.Logf("the copy is at %s, what has gone was at %s", n.loop["b"].Path, path)
	}
	must(t, os.WriteFile(r.path("staging-b/own"), []byte("b"), 0o600))
	if _, err := os.Stat(r.path("staging-a/own")); err == nil {
		t.Error("it is the same file system")
	}
	r.unstage("b")
	r.unstage("a")
	r.gone("b")
}

// checked lets the tools of the file system look for damage.
func (r *realRig) checked(id, fsType string) {
	r.t.Helper()
	switch fsType {
	case "ext4":
		run(r.t, "e2fsck", "-n", "-f", r.node.file(id))
	case "xfs":
		run(r.t, "xfs_repair", "-n", "-f", r.node.file(id))
	case "btrfs":
		run(r.t, "btrfs", "check", "--readonly", r.node.file(id))
	}
}

// TestRealSameDiskTwice: one disk under two names, as two paths to it are, is not
// mounted a second time as if it were a copy.
func TestRealSameDiskTwice(t *testing.T) {
	for _, fsType := range []string{"xfs", "btrfs", "ext2", "ext3", "ext4"} {
		t.Run(fsType, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			r.formatted("v", fsType)
			r.stage("v", "")
			// AttachLoop refuses this.
			second := strings.TrimSpace(run(t, "losetup", "-f", "--show", n.file("v")))
			detach := sync.OnceFunc(func() { run(t, "losetup", "-d", second) })
			t.Cleanup(detach) // not twice: by then it may be another test's
			before := r.Volumes()
			w := &pathNode{path: second}
			e, err := mounter.New(w, &mounter.Options{StateDir: r.path("other"), AllowVolatileState: true})
			must(t, err)
			must(t, e.Start(t.Context()))
			req := r.stageReq("w", "")
			wantKind(t, e.Stage(t.Context(), req), backends.ErrInUse)
			if r.isMount("staging-w") || len(r.Volumes()) != len(before) {
				t.Error("mounted")
			}
			must(t, e.Close())
			detach()
			r.unstage("v")
			r.gone("v")
			r.checked("v", fsType)
		})
	}
}

// pathNode knows a device by its path alone.
type pathNode struct{ path string }

func (n *pathNode) OpenVolume(context.Context, backends.OpenVolumeRequest) (*backends.Source, error) {
	return &backends.Source{Device: &backends.Device{Path: n.path, Identity: backends.Identity{Unverified: "a test"}}}, nil
}

func (*pathNode) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

// TestCopyRefused: without temp_fsid, and where nobody knows whether it is another
// disk.
func TestCopyRefused(t *testing.T) {
	for _, c := range []struct {
		relation blockdev.Relation
		verified bool
		want     error
	}{
		{blockdev.Different, false, nil},
		{blockdev.Unrelated, true, nil},
		{blockdev.Unrelated, false, backends.ErrInUse},
		{blockdev.Same, true, backends.ErrInUse},
	} {
		t.Run(c.relation.String(), func(t *testing.T) {
			n := newLoopNode(t)
			var node backends.Node = n
			if !c.verified {
				node = unverified{n}
			}
			r := newRealRig(t, n, n)
			r.formatted("v", "xfs")
			run(t, "cp", "--sparse=always", n.file("v"), n.file("w"))
			r.stage("v", "")
			host, err := mounter.HostKernel(nil)
			must(t, err)
			e, err := mounter.New(node, &mounter.Options{StateDir: r.path("other"), AllowVolatileState: true, Kernel: related{host, c.relation}})
			must(t, err)
			must(t, e.Start(t.Context()))
			err = e.Stage(t.Context(), r.stageReq("w", ""))
			if c.want == nil {
				must(t, err)
			} else {
				wantKind(t, err, c.want)
			}
			must(t, e.Unstage(t.Context(), mounter.UnstageRequest{ID: "w", Path: r.path("staging-w")}))
			must(t, e.Close())
			r.unstage("v")
			r.gone("v")
			r.gone("w")
		})
	}
}

// related is a kernel that knows this much of a copy.
type related struct {
	mounter.Kernel
	relation blockdev.Relation
}

func (k related) Copies(ctx context.Context, d mounter.Device, fsType, uuid string) ([]mounter.Copy, error) {
	copies, err := k.Kernel.Copies(ctx, d, fsType, uuid)
	for i := range copies {
		copies[i].Relation = k.relation
	}
	return copies, err
}

// unverified is a backend that knows its devices by their paths.
type unverified struct{ *loopNode }

func (n unverified) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	src, err := n.loopNode.OpenVolume(ctx, req)
	if err == nil {
		src.Device.Identity = backends.Identity{Unverified: "a test"}
	}
	return src, err
}
