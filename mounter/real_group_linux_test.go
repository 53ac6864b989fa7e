package mounter_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// TestRealMountGroup: the root is the group's and writable for it, what is made in it
// belongs to the group too, what was there before stays as it is, and what the volume's
// user makes of the root afterwards too. A reader's volume is not written to.
func TestRealMountGroup(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			r.formatted("v", fsType)
			grouped := func(req mounter.StageRequest) mounter.StageRequest {
				req.Capability.Group = "4242"
				return req
			}
			before := n.sum("v")
			must(t, r.Stage(t.Context(), grouped(r.readerReq("v", backends.MultiNodeReader))))
			if _, gid := owner(t, r.path("staging-v")); gid != 0 {
				t.Errorf("a reader's root was given to %d", gid)
			}
			r.unstage("v")
			if n.sum("v") != before {
				t.Error("a reader's volume was written to")
			}

			for range 2 {
				must(t, r.Stage(t.Context(), grouped(r.stageReq("v", ""))))
			}
			root, old := r.path("staging-v"), r.path("staging-v/file")
			if _, gid := owner(t, old); gid != 0 {
				t.Errorf("what was there was given to %d", gid)
			}
			must(t, os.Mkdir(root+"/dir", 0o700))
			must(t, os.Chmod(root+"/dir", 0o770|os.ModeSetgid))                          //nolint:gosec // for the group
			c := exec.Command("touch", "/proc/self/fd/3/new", "/proc/self/fd/3/dir/new") // above, all is root's
			d, err := os.Open(root)
			must(t, err)
			c.ExtraFiles = []*os.File{d}
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000, Groups: []uint32{4242}}}
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("a member of the group: %v: %s", err, out)
			}
			must(t, d.Close())
			for _, p := range []string{"/dir", "/new", "/dir/new"} {
				if _, gid := owner(t, root+p); gid != 4242 {
					t.Errorf("%s belongs to group %d", p, gid)
				}
			}
			must(t, os.Chmod(root, 0o750|os.ModeSetgid)) //nolint:gosec // by its user
			r.unstage("v")
			must(t, r.Stage(t.Context(), grouped(r.stageReq("v", ""))))
			if st, err := os.Stat(root); err != nil || st.Mode().Perm() != 0o750 {
				t.Errorf("the root is %v again, %v", st.Mode(), err)
			}
			r.unstage("v")
			r.gone("v")
		})
	}
}
