package mounter_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
)

// TestUnpublishRemovesTheTargetOnly: nothing that holds anything, nothing beside
// it, and nothing through a link.
func TestUnpublishRemovesTheTargetOnly(t *testing.T) {
	r := newRig(t, nil)
	file := func(name, text string) string {
		p := filepath.Join(r.dir, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o700))
		must(t, os.WriteFile(p, []byte(text), 0o600))
		return p
	}
	link := filepath.Join(r.dir, "link")
	must(t, os.Symlink(r.dir, link))
	for _, path := range []string{filepath.Dir(file("full/of/files", "x")), file("letter", "text"), link, filepath.Join(r.dir, "full")} {
		err := r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "v", Path: path})
		wantKind(t, err, backends.ErrUnavailable)
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is gone", path)
		}
	}
	for _, path := range []string{file("empty", ""), filepath.Join(r.dir, "missing"), filepath.Join(r.dir, "letter", "below"), filepath.Join(r.dir, strings.Repeat("long", 100))} {
		must(t, r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "v", Path: path}))
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

// TestBusyTarget: the CO comes back.
func TestBusyTarget(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.publish()
	r.Kernel.Fail("Unwind", 1, backends.ErrInUse)
	wantKind(t, r.Unpublish(t.Context(), r.unpublishRequest()), backends.ErrUnavailable)
	if r.mountsAt(r.target) != 1 {
		t.Error("unmounted")
	}
	r.unpublish()
	must(t, os.MkdirAll(filepath.Join(r.target, "left by somebody"), 0o700))
	wantKind(t, r.Unpublish(t.Context(), r.unpublishRequest()), backends.ErrUnavailable)
}

func TestTargetIsInTheWay(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	must(t, os.MkdirAll(filepath.Dir(r.target), 0o700))
	must(t, os.WriteFile(r.target, []byte("x"), 0o600))
	wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrPrecondition)
	must(t, os.Remove(r.target))
	must(t, os.Symlink(r.dir, r.target))
	wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrPrecondition)
	if _, err := os.Lstat(r.target); err != nil {
		t.Error("the link is gone")
	}
	must(t, os.Remove(r.target))
	r.publish()
}

// TestTargetHoldsFiles: files of the host's are not hidden below a mount, after
// which nothing could remove the directory.
func TestTargetHoldsFiles(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	must(t, os.MkdirAll(r.target, 0o700))
	file := filepath.Join(r.target, "file")
	must(t, os.WriteFile(file, []byte("the host's"), 0o600))
	err := r.Publish(t.Context(), r.publishRequest())
	wantKind(t, err, backends.ErrPrecondition)
	if _, stat := os.Lstat(file); stat != nil || r.mountsAt(r.target) != 0 || !strings.Contains(err.Error(), "move them away") {
		t.Errorf("%v, %v, mounts %v", err, stat, r.Kernel.Mounts())
	}
	must(t, os.Remove(file))
	r.publish() // an empty directory is what old kubelets make
	r.unpublish()
	r.unstage()
	r.clean()
}

// TestStagingPathIsNoDirectory: found out before anything is opened.
func TestStagingPathIsNoDirectory(t *testing.T) {
	for name, path := range map[string]string{"a file": "file", "below a file": "file/staging", "a link": "link"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			must(t, os.WriteFile(filepath.Join(r.dir, "file"), nil, 0o600))
			must(t, os.Symlink(r.dir, filepath.Join(r.dir, "link")))
			r.staging = filepath.Join(r.dir, path)
			wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
			if got := r.node.log(); len(got) != 0 {
				t.Errorf("calls %v", got)
			}
			r.clean()
		})
	}
	t.Run("over the records", func(t *testing.T) {
		r := newRig(t, nil)
		for _, path := range []string{r.StateDir(), filepath.Dir(r.StateDir())} {
			r.staging = path
			wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
		}
		if got := r.node.log(); len(got) != 0 {
			t.Errorf("calls %v", got)
		}
		r.clean()
	})
	t.Run("of a volume that is open", func(t *testing.T) {
		r := newRig(t, nil)
		r.Kernel.Fail("Probe", 1, errors.New("not yet"))
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrUnavailable)
		must(t, os.WriteFile(r.staging, nil, 0o600))
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
		r.clean()
	})
}

// TestDeviceNotDeclared: a device from a backend that has none is not formatted.
func TestDeviceNotDeclared(t *testing.T) {
	n := newNode()
	r := &rig{t: t, node: n, dir: t.TempDir()}
	r.Engine = mountertest.New(t, n, &mountertest.Options{Adjust: func(o *mounter.Options) { o.NoDevices = true }})
	r.staging = filepath.Join(r.dir, "staging")
	n.sources["v"] = &backends.Source{
		Device: &backends.Device{Path: "/dev/a", Identity: backends.Identity{Serial: "A"}}, State: []byte("state of v"),
	}
	err := r.Stage(t.Context(), r.stageRequest())
	wantKind(t, err, backends.ErrPrecondition)
	if !strings.Contains(err.Error(), "Traits.Devices") || r.mkfs() != 0 {
		t.Errorf("%v; log %v", err, r.Kernel.Log())
	}
	r.clean()
	if got := string(n.states["v"]); got != "state of v" {
		t.Errorf("CloseVolume got state %q", got)
	}
}

func TestBadPaths(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"", "relative", "/", "//", "/x/..", "/a\x00b", "/a\xff"} {
		ctx := t.Context()
		wantKind(t, r.Unpublish(ctx, mounter.UnpublishRequest{ID: "v", Path: path}), backends.ErrInvalid)
		wantKind(t, r.Unstage(ctx, mounter.UnstageRequest{ID: "v", Path: path}), backends.ErrInvalid)
		req := r.stageRequest()
		req.Path = path
		wantKind(t, r.Stage(ctx, req), backends.ErrInvalid)
		pub := r.publishRequest()
		pub.Path = path
		wantKind(t, r.Publish(ctx, pub), backends.ErrInvalid)
	}
	wantKind(t, r.Unstage(t.Context(), mounter.UnstageRequest{Path: r.staging}), backends.ErrInvalid)
	wantKind(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "a\xff", Path: r.staging}), backends.ErrInvalid)
	pub := r.publishRequest()
	pub.Path = pub.StagingPath
	wantKind(t, r.Publish(t.Context(), pub), backends.ErrInvalid)
	// Slashes do not make another path.
	r.stage()
	must(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.staging + "//"}))
	r.clean()
}

// TestRawBlock: one device, one flag.
func TestRawBlock(t *testing.T) {
	r := newRig(t, nil)
	block := backends.Capability{Mode: backends.SingleNodeMultiWriter, Block: true}
	stage, one := r.stageRequest(), r.publishRequest()
	stage.Capability, one.Capability = block, block
	two := one
	two.Path += "-2"
	ctx := t.Context()
	wantKind(t, r.Publish(ctx, one), backends.ErrPrecondition)
	must(t, r.Stage(ctx, stage))
	must(t, r.Stage(ctx, stage))
	if len(r.Kernel.Mounts()) != 0 || r.mkfs() != 0 {
		t.Errorf("log %v", r.Kernel.Log())
	}
	one.ReadOnly, two.ReadOnly = true, true
	must(t, r.Publish(ctx, one))
	must(t, r.Publish(ctx, one))
	must(t, r.Publish(ctx, two))
	if !r.disk.IsReadOnly() || len(r.Kernel.Mounts()) != 2 {
		t.Errorf("read-only %v, mounts %v", r.disk.IsReadOnly(), r.Kernel.Mounts())
	}
	two.ReadOnly = false
	wantKind(t, r.Publish(ctx, two), backends.ErrIncompatible)
	three := two
	three.Path += "-3"
	wantKind(t, r.Publish(ctx, three), backends.ErrPrecondition)
	must(t, r.Unpublish(ctx, mounter.UnpublishRequest{ID: "v", Path: two.Path}))
	if !r.disk.IsReadOnly() {
		t.Error("writable while it is published read-only")
	}
	must(t, r.Unpublish(ctx, mounter.UnpublishRequest{ID: "v", Path: one.Path}))
	if r.disk.IsReadOnly() {
		t.Error("still read-only")
	}
	must(t, r.Publish(ctx, three))
	st, err := r.Stats(ctx, mounter.StatsRequest{ID: "v", Path: "/dev/a"}) // as kubelet asks
	if err != nil || !st.Block || st.Total != gib {
		t.Errorf("stats %+v, %v", st, err)
	}
	wantKind(t, r.Unstage(ctx, r.unstageRequest()), backends.ErrInUse)
	must(t, r.Unpublish(ctx, mounter.UnpublishRequest{ID: "v", Path: three.Path}))
	r.unstage()
	r.clean()
}

// TestRawBlockOtherDisk: a disk that was replaced is not published under the old
// name.
func TestRawBlockOtherDisk(t *testing.T) {
	r := newRig(t, nil)
	stage, pub := r.stageRequest(), r.publishRequest()
	stage.Capability.Block, pub.Capability.Block = true, true
	must(t, r.Stage(t.Context(), stage))
	r.disk.Replace(backends.Identity{Serial: "A"}) // even one that says it is the same
	wantKind(t, r.Publish(t.Context(), pub), backends.ErrPrecondition)
	must(t, r.Stage(t.Context(), stage)) // looks, and opens it anew
	must(t, r.Publish(t.Context(), pub))
}

// TestDirAndMount: the other two kinds of source.
func TestDirAndMount(t *testing.T) {
	dir := t.TempDir()
	for name, src := range map[string]*backends.Source{
		"dir":   {Dir: dir},
		"mount": {Mount: &backends.Mount{Source: "server:/export", FSType: "nfs4", Options: []string{"vers=4.2"}, Remote: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.node.sources["v"] = src
			stage, pub := r.stageRequest(), r.publishRequest()
			stage.Capability.FSType, pub.Capability.FSType = "", ""
			ctx := t.Context()
			for range 2 {
				must(t, r.Stage(ctx, stage))
				must(t, r.Publish(ctx, pub))
				must(t, r.Restart())
			}
			if len(r.Kernel.Mounts()) != 2 {
				t.Errorf("mounts %+v", r.Kernel.Mounts())
			}
			st, err := r.Stats(ctx, mounter.StatsRequest{ID: "v", Path: r.target})
			if err != nil || st.Total == 0 {
				t.Errorf("stats %+v, %v", st, err)
			}
			if size, err := r.Expand(ctx, mounter.ExpandRequest{ID: "v", Path: r.target}); err != nil || size != 0 {
				t.Errorf("expand %d, %v", size, err)
			}
			r.unpublish()
			r.unstage()
			r.clean()
			stage.Capability.Block = true
			wantKind(t, r.Stage(ctx, stage), backends.ErrPrecondition)
			r.clean()
		})
	}
}

// TestSourcesAreChecked: a backend's mistake is answered, not worked with.
func TestSourcesAreChecked(t *testing.T) {
	dev := &backends.Device{Path: "/dev/a", Identity: backends.Identity{Serial: "A"}}
	for name, src := range map[string]*backends.Source{
		"nothing":         {},
		"two":             {Device: dev, Dir: "/srv/x"},
		"relative dir":    {Dir: "srv"},
		"root":            {Dir: "/"},
		"relative device": {Device: &backends.Device{Path: "a", Identity: dev.Identity}},
		"no type":         {Mount: &backends.Mount{Source: "x"}},
		"read-only":       {Mount: &backends.Mount{Source: "x", FSType: "nfs4", Options: []string{"vers=4.2,ro"}}},
		"a bind":          {Mount: &backends.Mount{Source: "x", FSType: "nfs4", Options: []string{"bind"}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.node.sources["v"] = src
			wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
			r.clean()
		})
	}
}

// TestSecretsStayOut: neither records nor errors hold what the CO gave in
// confidence.
func TestSecretsStayOut(t *testing.T) {
	const canary = "canary-8371"
	r := newRig(t, nil)
	req := r.stageRequest()
	req.Secrets = backends.NewSecrets(map[string]string{"key": canary})
	req.Capability.Flags = backends.NewFlags("password=" + canary)
	req.Owner.Tokens = backends.NewSecret(canary)
	must(t, r.Stage(t.Context(), req))
	pub := r.publishRequest()
	pub.Secrets, pub.Owner, pub.Capability.Flags = req.Secrets, req.Owner, req.Capability.Flags
	must(t, r.Publish(t.Context(), pub))
	pub.Capability.Flags = backends.NewFlags("password=" + canary + "2")
	err := r.Publish(t.Context(), pub)
	wantKind(t, err, backends.ErrIncompatible)
	if strings.Contains(err.Error(), canary) {
		t.Errorf("error: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "*"))
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || strings.Contains(string(b), canary) {
			t.Errorf("%s: %s, %v", f, b, err)
		}
	}
}

func TestMountGroup(t *testing.T) {
	r := newRig(t, nil)
	req := r.stageRequest()
	req.Capability.Group = "2000"
	must(t, r.Stage(t.Context(), req))
	if got := r.Kernel.Group(r.staging); got != 2000 {
		t.Errorf("group %d", got)
	}
	req.Path, req.Capability.Group = r.staging+"-2", "wheel"
	wantKind(t, r.Stage(t.Context(), req), backends.ErrInvalid)
}

func TestStatsErrors(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.Kernel.Fail("StatFS", 1, errors.New("stale file handle"))
	_, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.staging})
	wantKind(t, err, backends.ErrUnavailable)
	r.Kernel.MountForeign(r.staging)
	_, err = r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.staging})
	wantKind(t, err, backends.ErrNotFound)
	_, err = r.Stats(t.Context(), mounter.StatsRequest{ID: "w", Path: r.staging})
	wantKind(t, err, backends.ErrNotFound)
}
