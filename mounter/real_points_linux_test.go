package mounter_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// pointRig is a directory volume, published at "pods/t".
type pointRig struct {
	*realRig
	dir, target string
}

// TestRealUnpublishPoints: what a target can have become, and that unpublish gets
// rid of it, or says why not. The names are those of TestIsMountPoint in mnt.
func TestRealUnpublishPoints(t *testing.T) {
	for _, c := range []struct {
		name   string
		target string // "": pods/t
		change func(t *testing.T, r *pointRig)
		path   func(r *pointRig) string // what is asked for; nil: the target
		want   error
	}{
		{name: "same-fs bind of a directory"},
		{name: "deleted source", change: func(t *testing.T, r *pointRig) { must(t, os.Remove(r.dir)) }},
		{name: "stacked", change: func(t *testing.T, r *pointRig) {
			for range 3 {
				must(t, mnt.Bind(r.dir, r.target, mnt.BindOptions{}))
			}
		}},
		{name: "renamed parent", change: func(t *testing.T, r *pointRig) { must(t, os.Rename(r.path("pods"), r.path("moved"))) },
			path: func(r *pointRig) string { return r.path("moved/t") }},
		{name: "trailing slash", path: func(r *pointRig) string { return r.target + "//" }},
		{name: "symlink last", change: func(t *testing.T, r *pointRig) { must(t, os.Symlink(r.target, r.path("link"))) },
			path: func(r *pointRig) string { return r.path("link") }, want: backends.ErrUnavailable},
		{name: "below a symlinked parent", target: "link/t"},
		{name: "space", target: "pods/a b"},
		{name: "newline", target: "pods/a\nb"},
		{name: "backslash", target: `pods/a\040b`},
		{name: "root", path: func(*pointRig) string { return "/" }, want: backends.ErrInvalid},
		{name: "plain directory", change: func(t *testing.T, r *pointRig) { _, err := mnt.Unwind(r.target); must(t, err) }},
		{name: "regular file", change: func(t *testing.T, r *pointRig) {
			_, err := mnt.Unwind(r.target)
			must(t, err)
			must(t, os.Remove(r.target))
			must(t, os.WriteFile(r.target, []byte("data"), 0o600))
		}, want: backends.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := dirNode{t.TempDir()}
			target := c.target
			if target == "" {
				target = "pods/t"
			}
			r := &pointRig{newRealRig(t, n, nil), filepath.Join(n.dir, "v"), ""}
			must(t, os.Mkdir(r.dir, 0o700))
			must(t, os.Mkdir(r.path("pods"), 0o700))
			if c.target == "link/t" {
				must(t, os.Symlink(r.path("pods"), r.path("link")))
			}
			r.target = r.path(target)
			r.stage("v", "")
			r.publish("v", target)
			if c.change != nil {
				c.change(t, r)
			}
			path := r.target
			if c.path != nil {
				path = c.path(r)
			}
			err := r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "v", Path: path})
			if c.want != nil {
				wantKind(t, err, c.want)
				return
			}
			must(t, err)
			if is, err := mnt.IsMountPoint(filepath.Clean(path)); is {
				t.Errorf("still a mount point, %v", err)
			}
			if _, err := os.Lstat(filepath.Clean(path)); !os.IsNotExist(err) {
				t.Errorf("the target is left: %v", err)
			}
			if mounts, err := mnt.OfDevice(devOf(t, n.dir)); err != nil || len(below(mounts, r.realRig.dir)) != 1 {
				t.Errorf("mounts: %+v, %v", below(mounts, r.realRig.dir), err) // the staging path's
			}
			if c.name != "renamed parent" { // whose record has the old path
				r.unstage("v")
			}
		})
	}
}

func devOf(t *testing.T, path string) uint64 {
	var st unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS, &st))
	return unix.Mkdev(st.Dev_major, st.Dev_minor)
}

func below(mounts []mnt.Info, dir string) (list []mnt.Info) {
	for _, m := range mounts {
		if len(m.Point) > len(dir) && m.Point[:len(dir)+1] == dir+"/" {
			list = append(list, m)
		}
	}
	return list
}
