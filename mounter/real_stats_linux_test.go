package mounter_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// inStatfs counts the threads of this process that are in statfs.
func inStatfs(t *testing.T) (n int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/syscall")
	must(t, err)
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		number, _, _ := strings.Cut(string(b), " ")
		if number == strconv.Itoa(unix.SYS_STATFS) || number == strconv.Itoa(unix.SYS_FSTATFS) {
			n++
		}
	}
	return n
}

// wantOneInStatfs: of all who asked one thread hangs.
func wantOneInStatfs(t *testing.T) {
	t.Helper()
	until(t, "a thread hangs", func() bool { return inStatfs(t) > 0 })
	if n := inStatfs(t); n != 1 {
		t.Errorf("%d threads hang", n)
	}
}

// until waits for a state of the kernel.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

// TestRealStatsHang: a statfs that never comes back costs one thread, however often
// it is asked for; the last known figures are given meanwhile; other volumes do not
// notice, nor do unpublish and unstage; and the thread ends with the file system.
func TestRealStatsHang(t *testing.T) {
	n, loops := &fixed{}, newLoopNode(t)
	r := newRealRig(t, n, loops)
	r.within(4*time.Second, n)
	n.src.Dir = r.path("fuse")
	must(t, os.Mkdir(n.src.Dir, 0o755))
	s := serveFUSE(t, n.src.Dir)
	r.stage("v", "")
	r.publish("v", "t")
	ask := func() (*mounter.Stats, error) {
		return r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")})
	}
	var st *mounter.Stats
	until(t, "figures of the healthy one", func() bool { // a machine may stand still for 4 s
		var err error
		st, err = ask()
		return err == nil && st.Age == 0
	})
	if st.Total != 1000*4096 {
		t.Fatalf("of the healthy one: %+v", st)
	}
	s.quiet.Store(true)
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if st, err := ask(); err != nil || st.Age == 0 || st.Total != 1000*4096 {
				t.Errorf("got %+v, %v", st, err)
			}
		})
	}
	all.Wait()
	wantOneInStatfs(t)
	n.src.Dir = t.TempDir()
	r.stage("w", "")
	until(t, "figures of another volume", func() bool {
		st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "w", Path: r.path("staging-w")})
		return err == nil && st.Age == 0
	})
	r.unstage("w")
	if os.Getenv(envAPI) == "old" {
		s.die() // there the question has the mount busy
	}
	r.unpublish("v", "t")
	r.unstage("v")
	if _, err := ask(); err == nil {
		t.Error("figures of what is gone")
	}
	s.die()
	until(t, "the thread ends", func() bool { return inStatfs(t) == 0 })
}

// TestRealStatsBlockPaths: kubelet asks about a raw block volume at paths of its own,
// which were never published: a symbolic link to the device, or a bind of its node.
func TestRealStatsBlockPaths(t *testing.T) {
	for name, readOnly := range map[string]bool{"writable": false, "read-only": true} {
		t.Run(name, func(t *testing.T) {
			n, r := newRealVolume(t, 16*mib)
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
