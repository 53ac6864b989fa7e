package mounter_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// TestRealStatsBlockPaths: kubelet asks about a raw block volume at paths of its own,
// which were never published: a symbolic link to the device, or a bind of its node.
func TestRealStatsBlockPaths(t *testing.T) {
	for name, readOnly := range map[string]bool{"writable": false, "read-only": true} {
		t.Run(name, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			n.make("v", 16*mib)
			n.make("w", 32*mib)
			mode := backends.Capability{Block: true, Mode: backends.SingleNodeWriter}
			for _, id := range []string{"v", "w"} {
				must(t, r.Stage(t.Context(), mounter.StageRequest{ID: id, Path: r.path("staging-" + id), Capability: mode}))
			}
			pub := r.publishReq("v", "dev/pod")
			pub.Capability, pub.ReadOnly = mode, readOnly
			must(t, r.Publish(t.Context(), pub))
			// volumeDevices/kubernetes.io~csi/PV/dev/POD is the target, and a link to it
			// stands in the pod's own directory; plugins/.../volumeDevices/PV/POD is a
			// bind of the loop device's node.
			must(t, os.Symlink(r.path("dev/pod"), r.path("link")))
			must(t, os.Symlink(n.loop["v"].Path, r.path("link-dev")))
			must(t, os.WriteFile(r.path("bind"), nil, 0o600))
			must(t, unix.Mount(r.path("dev/pod"), r.path("bind"), "", unix.MS_BIND, ""))
			must(t, os.WriteFile(r.path("bind-dev"), nil, 0o600))
			must(t, unix.Mount(n.loop["v"].Path, r.path("bind-dev"), "", unix.MS_BIND, ""))
			check := func(when string) {
				t.Helper()
				for _, path := range []string{"dev/pod", "link", "link-dev", "bind", "bind-dev", "staging-v"} {
					st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path(path)})
					if err != nil || !st.Block || st.Total != 16*mib || st.Age != 0 {
						t.Errorf("%s, at %s: %+v, %v", when, path, st, err)
					}
					if path == "staging-v" {
						continue
					}
					_, err = r.Stats(t.Context(), mounter.StatsRequest{ID: "w", Path: r.path(path)})
					wantKind(t, err, backends.ErrNotFound)
				}
				_, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: "/dev/null"})
				wantKind(t, err, backends.ErrNotFound)
			}
			check("published")
			must(t, r.Close())
			r.start(n)
			check("after a restart")
			must(t, unix.Unmount(r.path("bind"), 0))
			must(t, unix.Unmount(r.path("bind-dev"), 0))
			r.unpublish("v", "dev/pod")
			r.unstage("v")
			_, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("link-dev")})
			wantKind(t, err, backends.ErrNotFound)
			r.unstage("w")
			r.gone("w")
		})
	}
}
