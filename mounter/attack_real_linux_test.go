package mounter_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestRealStateDirFull: without room for a record nothing begins, but everything
// can be undone, also by a driver that starts anew.
func TestRealStateDirFull(t *testing.T) {
	n := newLoopNode(t)
	testenv.Root(t)
	r := &realRig{t: t, node: n, dir: t.TempDir()}
	r.state = filepath.Join(r.dir, "state")
	must(t, os.Mkdir(r.state, 0o700))
	must(t, mnt.Mount("tmpfs", "tmpfs", r.state, mnt.Options{Data: "size=64k"}))
	t.Cleanup(func() {
		must(t, r.Close())
		_, err := mnt.Unwind(r.state)
		must(t, err)
	})
	r.start(n)
	n.make("v", 64*mib)
	n.make("w", 64*mib)
	r.stage("v", "ext4")
	r.publish("v", "pods/1")
	fill(t, filepath.Join(r.state, "full"))
	wantKind(t, r.Stage(t.Context(), r.stageReq("w", "ext4")), backends.ErrUnavailable)
	must(t, r.Close())
	r.start(n)
	r.unpublish("v", "pods/1")
	r.unstage("v")
	r.unstage("w")
	r.gone("v")
	must(t, os.Remove(filepath.Join(r.state, "full")))
	r.stage("w", "ext4")
	r.unstage("w")
}

// fill takes all the room that is left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	for _, size := range []int{4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	must(t, f.Close())
}

// dirNode is a backend of directories below one.
type dirNode struct{ dir string }

func (n dirNode) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	return &backends.Source{Dir: filepath.Join(n.dir, req.ID)}, nil
}

func (n dirNode) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

// TestRealMountIDIsUsedAgain: the kernel gives the number of a mount that is gone
// to the next one, and directories of one file system differ in nothing else.
func TestRealMountIDIsUsedAgain(t *testing.T) {
	n := dirNode{t.TempDir()}
	r := newRealRig(t, n, nil)
	for _, id := range []string{"v", "w"} {
		must(t, os.Mkdir(filepath.Join(n.dir, id), 0o700))
		must(t, os.WriteFile(filepath.Join(n.dir, id, "name"), []byte(id), 0o600))
	}
	r.stage("v", "")
	_, err := mnt.Unwind(r.path("staging-v"))
	must(t, err)
	req := r.stageReq("w", "")
	req.Path = r.path("staging-v")
	must(t, r.Stage(t.Context(), req))
	if err := r.Publish(t.Context(), r.publishReq("v", "pods/v")); err == nil {
		b, _ := os.ReadFile(r.path("pods/v/name"))
		t.Errorf("published %q as v", b)
		r.unpublish("v", "pods/v")
	}
	_ = r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-v")})
	if !r.isMount("staging-v") {
		t.Error("w is unmounted")
	}
	must(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "w", Path: r.path("staging-v")}))
	r.unstage("v")
	if v := r.Volumes(); len(v) > 0 {
		t.Errorf("records left: %v", v)
	}
}

// closer counts the calls of CloseVolume.
type closer struct {
	*loopNode
	n int
}

func (c *closer) CloseVolume(ctx context.Context, req backends.CloseVolumeRequest) error {
	c.n++
	return c.loopNode.CloseVolume(ctx, req)
}

// elsewhere has a process with a copy of all mounts in a namespace of its own, as a
// container has those of the pods that were there before it.
func elsewhere(t *testing.T) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("cat") // until its standard input ends
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	return cmd.Process.Pid, func() {
		must(t, in.Close())
		must(t, cmd.Wait())
	}
}

// TestRealMountedInAnotherNamespace: a device whose file system is still mounted
// where the engine cannot see it is not taken away below it. What the next pod of
// the node gets is the same file system, and not a second one on that device.
func TestRealMountedInAnotherNamespace(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			testenv.Tool(t, "mkfs."+fsType)
			n := &closer{loopNode: newLoopNode(t)}
			r := newRealRig(t, n, n.loopNode)
			n.make("v", 320*mib)
			r.stage("v", fsType)
			must(t, os.WriteFile(r.path("staging-v/f"), []byte("first"), 0o600)) // nobody has synced that
			pid, end := elsewhere(t)
			err := r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-v")})
			wantKind(t, err, backends.ErrUnavailable)
			want := "in the namespace of process " + strconv.Itoa(pid) + " (cat)"
			if !strings.Contains(err.Error(), want) && fsType == "ext4" { // once is enough: it reads all of /proc
				t.Errorf("no %q in %v", want, err)
			}
			if n.n != 0 {
				t.Error("the backend was asked to take away a device that is mounted")
			}
			r.stage("v", fsType)
			r.publish("v", "pods/next")
			r.holds("pods/next/f", "first")
			r.unpublish("v", "pods/next")
			end()
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealHeldWithoutRecord: what holds a device in another namespace is believed to
// be the volume's own file system only where this engine has mounted it.
func TestRealHeldWithoutRecord(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	n.make("v", 64*mib)
	r.stage("v", "ext4")
	_, end := elsewhere(t)
	_ = r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-v")})
	r.stage("v", "ext4") // it is known
	_ = r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-v")})
	must(t, r.Close())
	must(t, os.RemoveAll(r.state))
	r.start(n)
	wantKind(t, r.Stage(t.Context(), r.stageReq("v", "ext4")), backends.ErrUnavailable)
	end()
	r.stage("v", "ext4")
	r.unstage("v")
	r.gone("v")
}

// TestRealStrangePaths: what a path is written with is no part of the work.
func TestRealStrangePaths(t *testing.T) {
	for _, fsType := range []string{"xfs", "btrfs", "ext4"} {
		t.Run(fsType, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			r.dir = filepath.Join(r.dir, "new\nline \\012 tab\t, \"quote\" #")
			must(t, os.Mkdir(r.dir, 0o700))
			n.make("v", 320*mib)
			r.stage("v", fsType)
			r.stage("v", fsType)
			r.publish("v", "pods\n1")
			r.publish("v", "pods\n1")
			must(t, os.Truncate(n.file("v"), 400*mib))
			if fsType != "ext4" {
				_, err := r.Expand(t.Context(), mounter.ExpandRequest{ID: "v", Path: r.path("staging-v")})
				must(t, err)
			}
			r.unpublish("v", "pods\n1")
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealHiddenMounts: somebody mounted over the directory that the paths are in,
// as a kubelet does that is started anew in a container. What is below is not gone.
func TestRealHiddenMounts(t *testing.T) {
	n := dirNode{t.TempDir()}
	r := newRealRig(t, n, nil)
	must(t, os.Mkdir(filepath.Join(n.dir, "v"), 0o700))
	stage, pub := r.stageReq("v", ""), r.publishReq("v", "kubelet/pods/1")
	stage.Path = r.path("kubelet/staging")
	pub.StagingPath = stage.Path
	unpublish, unstage := mounter.UnpublishRequest{ID: "v", Path: pub.Path}, mounter.UnstageRequest{ID: "v", Path: stage.Path}
	ctx := t.Context()
	must(t, r.Stage(ctx, stage))
	must(t, r.Publish(ctx, pub))
	must(t, mnt.Mount("tmpfs", "tmpfs", r.path("kubelet"), mnt.Options{}))
	wantKind(t, r.Unpublish(ctx, unpublish), backends.ErrUnavailable)
	wantKind(t, r.Unstage(ctx, unstage), backends.ErrUnavailable)
	_, err := mnt.Unwind(r.path("kubelet"))
	must(t, err)
	must(t, r.Unpublish(ctx, unpublish))
	must(t, r.Unstage(ctx, unstage))
	if r.isMount("kubelet/staging") || r.isMount("kubelet/pods/1") || len(r.Volumes()) > 0 {
		t.Error("something is left")
	}
}

// TestRealPropagation: what is published below a shared mount is read-only in
// every namespace, and gone from every one when it is unpublished.
func TestRealPropagation(t *testing.T) {
	_, r := newRealVolume(t, 64*mib)
	must(t, os.Mkdir(r.path("kubelet"), 0o700))
	must(t, mnt.Bind(r.path("kubelet"), r.path("kubelet"), mnt.BindOptions{}))
	must(t, unix.Mount("", r.path("kubelet"), "", unix.MS_SHARED, ""))
	cmd := exec.Command("unshare", "-m", "--propagation", "unchanged", "cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = in.Write([]byte("x")) // comes back when cat runs, in its namespace
	must(t, err)
	_, err = out.Read(make([]byte, 1))
	must(t, err)
	there := func(name string) string {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "mountinfo"))
		must(t, err)
		lines := strings.Split(string(b), "\n")
		i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, r.path(name)+" ") })
		if i < 0 {
			return ""
		}
		return strings.Fields(lines[i])[5]
	}
	stage, pub := r.stageReq("v", "ext4"), r.publishReq("v", "kubelet/pods/1")
	stage.Path = r.path("kubelet/staging")
	pub.StagingPath, pub.ReadOnly = stage.Path, true
	must(t, r.Stage(t.Context(), stage))
	if os.Getenv(envAPI) == "old" {
		// It would be writable there, and so is refused.
		wantKind(t, r.Publish(t.Context(), pub), backends.ErrUnavailable)
		pub.ReadOnly = false
	}
	must(t, r.Publish(t.Context(), pub))
	t.Logf("there: %q %q", there("kubelet/staging"), there("kubelet/pods/1"))
	if o := there("kubelet/pods/1"); strings.HasPrefix(o, "ro") != pub.ReadOnly || o == "" {
		t.Errorf("the other namespace has %q", o)
	}
	r.unpublish("v", "kubelet/pods/1")
	must(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: stage.Path}))
	if o := there("kubelet/pods/1") + there("kubelet/staging"); o != "" {
		t.Errorf("left in the other namespace: %s", o)
	}
	must(t, in.Close())
	must(t, cmd.Wait())
	r.gone("v")
}

// TestRealAliasOfAnotherVolume: a link in a path does not make another volume's mount
// the caller's.
func TestRealAliasOfAnotherVolume(t *testing.T) {
	_, r := newRealVolume(t, 64*mib)
	r.stage("v", "ext4")
	r.publish("v", "pods/1")
	must(t, os.Symlink(r.dir, r.path("link")))
	for _, name := range []string{"staging-v", "pods/1"} {
		alias := filepath.Join(r.path("link"), name)
		if err := r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "w", Path: alias}); err == nil {
			t.Errorf("unpublish %s says OK", alias)
		}
		if err := r.Unstage(t.Context(), mounter.UnstageRequest{ID: "w", Path: alias}); err == nil {
			t.Errorf("unstage %s says OK", alias)
		}
		if !r.isMount(name) {
			t.Errorf("%s is unmounted", name)
		}
	}
	r.unpublish("v", "pods/1")
	r.unstage("v")
	r.gone("v")
}

// TestRealAliasOfStagingPath: the CO names the staging path in two ways, and undoes it
// in one.
func TestRealAliasOfStagingPath(t *testing.T) {
	_, r := newRealVolume(t, 64*mib)
	r.stage("v", "ext4")
	must(t, os.Symlink(r.dir, r.path("link")))
	pub := r.publishReq("v", "pods/1")
	pub.StagingPath = r.path("link/staging-v")
	must(t, r.Publish(t.Context(), pub))
	wantKind(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-v")}), backends.ErrInUse)
	r.unpublish("v", "pods/1")
	r.unstage("v")
	r.gone("v")
	must(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: pub.StagingPath}))
}

// TestRealParentsSwapped: the directory of a target is renamed, or reached by a link
// that leads somewhere else by now. What came to its path is another volume's.
func TestRealParentsSwapped(t *testing.T) {
	for name, swap := range map[string]func(r *realRig){
		"renamed": func(r *realRig) {
			must(r.t, os.Rename(r.path("v"), r.path("away")))
			must(r.t, os.Rename(r.path("w"), r.path("v")))
		},
		"linked": func(r *realRig) {
			must(r.t, os.Rename(r.path("v"), r.path("away")))
			must(r.t, os.Symlink(r.path("w"), r.path("v")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			for _, id := range []string{"v", "w"} {
				n.make(id, 64*mib)
				r.stage(id, "ext4")
				r.publish(id, id+"/target")
			}
			swap(r)
			_ = r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "v", Path: r.path("v/target")})
			if !r.isMount("v/target") {
				t.Error("w is unmounted")
			}
			if err := r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-v")}); err == nil {
				t.Error("closed, and it is still mounted")
			}
			r.unpublish("v", "away/target")
			r.unpublish("w", "v/target")
			for _, id := range []string{"v", "w"} {
				_ = r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: id, Path: r.path(id + "/target")})
				r.unstage(id)
			}
			r.gone("v")
			r.gone("w")
		})
	}
}
