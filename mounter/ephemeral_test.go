package mounter_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
)

// pods is a node with ephemeral volumes: each is a copy of volume "v", on its
// disk.
type pods struct {
	*recorder
	exist   map[string]string // the CO's ID -> own
	created []backends.CreateEphemeralRequest
	deleted []backends.DeleteEphemeralRequest
	opened  []backends.OpenVolumeRequest
	targets []backends.TargetRequest
	started []backends.OpenVolume
	answer  func(*backends.Volume) *backends.Volume // nil: as it is
	misused []string
}

func newPods(n *node) *pods { return &pods{recorder: &recorder{node: n}, exist: map[string]string{}} }

func (p *pods) CreateEphemeral(_ context.Context, req backends.CreateEphemeralRequest) (*backends.Volume, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.created = append(p.created, req)
	if err := p.failing("create"); err != nil {
		return nil, err
	}
	own := "own-" + req.ID
	if p.exist[req.ID] == "" {
		src := *p.sources["v"]
		p.exist[req.ID], p.sources[own] = own, &src
	}
	p.after("CreateEphemeral")
	v := &backends.Volume{ID: own, Context: map[string]string{"pool": "a"}}
	if p.answer != nil {
		return p.answer(v), nil
	}
	return v, nil
}

func (p *pods) DeleteEphemeral(_ context.Context, req backends.DeleteEphemeralRequest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deleted = append(p.deleted, req)
	if err := p.failing("delete"); err != nil {
		return err
	}
	own := "own-" + req.ID
	if p.open[own] > 0 {
		p.misused = append(p.misused, "deleted while open: "+own)
	}
	if req.VolumeID != "" && req.VolumeID != own {
		p.misused = append(p.misused, fmt.Sprintf("deleted %q for %q", req.VolumeID, req.ID))
	}
	if p.exist[req.ID] == "" {
		return backends.VolumeNotFound(req.ID)
	}
	delete(p.exist, req.ID)
	delete(p.sources, own)
	p.after("DeleteEphemeral")
	return nil
}

func (p *pods) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	p.mu.Lock()
	p.opened = append(p.opened, req)
	p.mu.Unlock()
	return p.recorder.OpenVolume(ctx, req)
}

func (p *pods) PrepareTarget(_ context.Context, req backends.TargetRequest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets = append(p.targets, req)
	return p.failing("prepare")
}

func (p *pods) RecoverNode(_ context.Context, open []backends.OpenVolume) error {
	p.started = open
	return nil
}

var (
	_ backends.EphemeralProvisioner = (*pods)(nil)
	_ backends.TargetPreparer       = (*pods)(nil)
)

// clean fails when anything of an ephemeral volume is left.
func (p *pods) clean(r *rig) {
	r.t.Helper()
	r.clean()
	if len(p.exist) > 0 || len(p.misused) > 0 {
		r.t.Errorf("volumes %v are left; %v", p.exist, p.misused)
	}
	for id, n := range p.open {
		if n > 0 {
			r.t.Errorf("%s is left open", id)
		}
	}
	if _, err := os.Lstat(r.target); !errors.Is(err, os.ErrNotExist) {
		r.t.Errorf("the target is left: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "*.json"))
	must(r.t, err)
	if len(files) > 0 {
		r.t.Errorf("records are left: %v", files)
	}
}

func podRequest(r *rig) mounter.PublishRequest {
	return mounter.PublishRequest{
		ID: "csi-1", Ephemeral: true, Path: r.target, Context: map[string]string{"size": "1Gi"},
		Capability: backends.Capability{Mode: backends.SingleNodeWriter},
		Owner:      backends.Owner{Pod: "web", Tokens: backends.NewSecret("token-1")},
		Secrets:    backends.NewSecrets(map[string]string{"key": "secret-1"}),
	}
}

func podGone(r *rig) mounter.UnpublishRequest {
	return mounter.UnpublishRequest{ID: "csi-1", Path: r.target}
}

func newPodRig(t *testing.T) (*rig, *pods) {
	t.Helper()
	var p *pods
	r := newRig(t, func(n *node) backends.Node { p = newPods(n); return p })
	return r, p
}

func TestPod(t *testing.T) {
	r, p := newPodRig(t)
	ctx, req := t.Context(), podRequest(r)
	must(t, r.Publish(ctx, req))
	if c := p.created[0]; c.ID != "csi-1" || c.Parameters["size"] != "1Gi" || c.Owner.Pod != "web" || c.Owner.Tokens.Reveal() != "token-1" || len(c.Secrets.Keys()) != 1 {
		t.Errorf("CreateEphemeral got %+v", c)
	}
	if o := p.opened[0]; o.ID != "own-csi-1" || o.Context["pool"] != "a" || len(o.Context) != 1 || o.Owner.Pod != "web" || len(o.Secrets.Keys()) != 1 {
		t.Errorf("OpenVolume got %+v", o)
	}
	if x := p.targets; len(x) != 1 || x[0].Again || x[0].ID != "own-csi-1" || x[0].Path != r.target || string(x[0].State) != "state of v" {
		t.Errorf("PrepareTarget got %+v", x)
	}
	for _, id := range []string{"csi-1", "own-csi-1"} {
		if path, used := r.InUse(id); !used || path != r.target {
			t.Errorf("%s: in use %v at %q", id, used, path)
		}
		if got := string(r.State(id)); got != "state of v" {
			t.Errorf("%s: state %q", id, got)
		}
		if got := r.OwnID(id); got != "own-csi-1" {
			t.Errorf("%s: own ID %q", id, got)
		}
	}
	st, err := r.Stats(ctx, mounter.StatsRequest{ID: "csi-1", Path: r.target})
	must(t, err)
	if st.Total != gib {
		t.Errorf("stats %+v", st)
	}
	// Republished, with fresh tokens (CO-07).
	req.Owner.Tokens, req.Secrets = backends.NewSecret("token-2"), backends.NewSecrets(map[string]string{"key": "secret-2"})
	must(t, r.Publish(ctx, req))
	if x := p.targets; len(x) != 2 || !x[1].Again || x[1].Owner.Tokens.Reveal() != "token-2" || string(x[1].State) != "state of v" || x[1].Context["pool"] != "a" {
		t.Errorf("PrepareTarget got %+v", x)
	}
	if r.mountsAt(r.target) != 1 || r.mkfs() != 1 || len(p.created) != 1 || len(p.opened) != 1 {
		t.Errorf("mounts %v, log %v, %d created", r.Kernel.Mounts(), r.Kernel.Log(), len(p.created))
	}
	for range 2 {
		must(t, r.Unpublish(ctx, podGone(r)))
	}
	if d := p.deleted; len(d) != 1 || d[0].ID != "csi-1" || d[0].VolumeID != "own-csi-1" || string(d[0].State) != "state of v" || string(p.states["own-csi-1"]) != "state of v" {
		t.Errorf("DeleteEphemeral got %+v", d)
	}
	p.clean(r)
}

func TestPodWithOtherArguments(t *testing.T) {
	r, p := newPodRig(t)
	ctx := t.Context()
	req := podRequest(r)
	req.Capability.Flags, req.Capability.FSType = backends.NewFlags("noatime"), "ext4"
	must(t, r.Publish(ctx, req))
	for name, change := range map[string]func(*mounter.PublishRequest){
		"read-only":  func(r *mounter.PublishRequest) { r.ReadOnly = true },
		"mode":       func(r *mounter.PublishRequest) { r.Capability.Mode = backends.SingleNodeSingleWriter },
		"group":      func(r *mounter.PublishRequest) { r.Capability.Group = "5" },
		"file":       func(r *mounter.PublishRequest) { r.Capability.FSType = "xfs" },
		"flags":      func(r *mounter.PublishRequest) { r.Capability.Flags = backends.NewFlags("nodev") },
		"attributes": func(r *mounter.PublishRequest) { r.Context = map[string]string{"size": "2Gi"} },
	} {
		other := req
		change(&other)
		err := r.Publish(ctx, other)
		wantKind(t, err, backends.ErrIncompatible)
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := req
	other.Path += "-2"
	wantKind(t, r.Publish(ctx, other), backends.ErrInUse)
	if len(p.created) != 1 || r.mountsAt(r.target) != 1 || len(p.deleted) > 0 {
		t.Errorf("%d created, %d deleted", len(p.created), len(p.deleted))
	}
	must(t, r.Unpublish(ctx, podGone(r)))
	p.clean(r)
}

// TestPodFails: behind a final error nothing is left; else the next call goes on,
// or an unpublish cleans up.
func TestPodFails(t *testing.T) {
	for _, tc := range []struct {
		name    string
		final   bool
		fail    func(*rig, *pods)
		deletes bool // although nothing is known to have been made
	}{
		{"create, final", true, func(_ *rig, p *pods) { p.failOnce("create", backends.ErrInvalid) }, false},
		{"create, no space", false, func(_ *rig, p *pods) { p.failOnce("create", backends.ErrNoSpace) }, true},
		{"create, in doubt", false, func(_ *rig, p *pods) { p.failOnce("create", errors.New("timeout")) }, true},
		{"open, final", true, func(_ *rig, p *pods) { p.failOnce("open", backends.ErrPrecondition) }, true},
		{"open, in doubt", false, func(_ *rig, p *pods) { p.failOnce("open", errors.New("timeout")) }, true},
		{"prepare, final", true, func(_ *rig, p *pods) { p.failOnce("prepare", backends.ErrPermission) }, true},
		{"mount", false, func(r *rig, _ *pods) { r.Kernel.Fail("Mount", 1, errors.New("no")) }, true},
		{"mount, final", true, func(r *rig, _ *pods) { r.Kernel.Fail("Mount", 1, backends.ErrInUse) }, true},
		{"mkfs", false, func(r *rig, _ *pods) { r.Kernel.Fail("Mkfs", 1, errors.New("no")) }, true},
		{"delete after a final error", false, func(_ *rig, p *pods) {
			p.failOnce("open", backends.ErrPrecondition)
			p.failOnce("delete", errors.New("timeout"))
		}, true},
		{"no volume", true, func(_ *rig, p *pods) { p.answer = func(*backends.Volume) *backends.Volume { return nil } }, true},
		{"no ID", true, func(_ *rig, p *pods) {
			p.answer = func(*backends.Volume) *backends.Volume { return &backends.Volume{} }
		}, true},
		{"a secret in the context", true, func(_ *rig, p *pods) {
			p.answer = func(v *backends.Volume) *backends.Volume { v.Context["k"] = "secret-1"; return v }
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, undo := range []bool{false, true} {
				r, p := newPodRig(t)
				tc.fail(r, p)
				err := r.Publish(t.Context(), podRequest(r))
				if err == nil {
					t.Fatal("published")
				}
				if isFinal := !errors.Is(err, backends.ErrUnavailable) && kindOf(err) != nil; isFinal != tc.final {
					t.Errorf("final %v: %v", isFinal, err)
				}
				if strings.Contains(err.Error(), "secret-1") {
					t.Errorf("a secret: %v", err)
				}
				if tc.final {
					p.clean(r)
				}
				if tc.final && (len(p.deleted) > 0) != tc.deletes {
					t.Errorf("%d deleted", len(p.deleted))
				}
				p.answer = nil
				if !undo {
					must(t, r.Publish(t.Context(), podRequest(r)))
				}
				must(t, r.Unpublish(t.Context(), podGone(r)))
				p.clean(r)
			}
		})
	}
}

// kindOf is the kind of a final error; nil when it has none of these.
func kindOf(err error) error {
	for _, k := range []error{backends.ErrInvalid, backends.ErrPrecondition, backends.ErrPermission, backends.ErrIncompatible, backends.ErrInUse} {
		if errors.Is(err, k) {
			return k
		}
	}
	return nil
}

// TestPodDataOutlivesErrors: once there was an OK, no error of a publish deletes.
func TestPodDataOutlivesErrors(t *testing.T) {
	for _, reboot := range []bool{false, true} {
		r, p := newPodRig(t)
		ctx, req := t.Context(), podRequest(r)
		must(t, r.Publish(ctx, req))
		uuid := r.disk.Content().UUID
		r.Kernel.UnmountForeign(r.target)
		if reboot {
			r.Kernel.Reboot()
			must(t, r.Restart())
			if o := p.started; len(o) != 1 || o[0].ID != "own-csi-1" || !o[0].Ephemeral || o[0].Mounted {
				t.Errorf("RecoverNode got %+v", o)
			}
		}
		p.failOnce("open", backends.ErrPrecondition)
		wantKind(t, r.Publish(ctx, req), backends.ErrUnavailable)
		if len(p.deleted) > 0 || len(p.exist) != 1 {
			t.Fatal("deleted")
		}
		must(t, r.Publish(ctx, req))
		if got := r.disk.Content().UUID; got != uuid || r.mountsAt(r.target) != 1 || len(p.created) != 1 {
			t.Errorf("file system %s became %s, %d created", uuid, got, len(p.created))
		}
		if last := p.opened[len(p.opened)-1]; last.Context["pool"] != "a" {
			t.Errorf("opened again with %+v", last)
		}
		// A target that somebody else mounted over.
		r.Kernel.MountForeign(r.target)
		wantKind(t, r.Publish(ctx, req), backends.ErrUnavailable)
		must(t, r.Unpublish(ctx, podGone(r)))
		p.clean(r)
	}
}

// TestPodStateReachesDelete: also of a volume that was opened and never mounted.
func TestPodStateReachesDelete(t *testing.T) {
	r, p := newPodRig(t)
	r.Kernel.Fail("Mount", 1, errors.New("no"))
	if r.Publish(t.Context(), podRequest(r)) == nil {
		t.Fatal("published")
	}
	must(t, r.Restart())
	must(t, r.Unpublish(t.Context(), podGone(r)))
	if d := p.deleted; len(d) != 1 || string(d[0].State) != "state of v" || string(p.states["own-csi-1"]) != "state of v" {
		t.Errorf("deleted %+v, closed with %q", d, p.states["own-csi-1"])
	}
	p.clean(r)
}

// TestPodOpenIsNotDeleted: an attempt that was cut short left it open, and the
// next one does not come as far as closing it.
func TestPodOpenIsNotDeleted(t *testing.T) {
	r, p := newPodRig(t)
	ctx := t.Context()
	r.Kernel.Fail("Mount", 1, errors.New("no"))
	if r.Publish(ctx, podRequest(r)) == nil {
		t.Fatal("published")
	}
	p.sources["x"] = &backends.Source{Dir: t.TempDir()}
	other := r.stageRequest()
	other.ID, other.Path, other.Capability.FSType = "x", r.target, ""
	must(t, r.Stage(ctx, other))
	wantKind(t, r.Publish(ctx, podRequest(r)), backends.ErrUnavailable)
	if len(p.deleted) > 0 {
		t.Error("deleted")
	}
	must(t, r.Unstage(ctx, mounter.UnstageRequest{ID: "x", Path: r.target}))
	must(t, r.Unpublish(ctx, podGone(r)))
	p.clean(r)
}

// TestPodRecordLost: either record is made good by the other one and the kernel.
func TestPodRecordLost(t *testing.T) {
	for _, which := range []string{"ephemeral-*", "stage-*"} {
		for _, again := range []bool{false, true} {
			r, p := newPodRig(t)
			must(t, r.Publish(t.Context(), podRequest(r)))
			must(t, r.Close())
			files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", which))
			must(t, err)
			must(t, os.Remove(files[0]))
			must(t, r.Restart())
			if o := p.started; len(o) != 1 || o[0].ID != "own-csi-1" || !o[0].Ephemeral || string(o[0].State) != "state of v" {
				t.Errorf("%s: RecoverNode got %+v", which, o)
			}
			if again {
				must(t, r.Publish(t.Context(), podRequest(r)))
				if r.mountsAt(r.target) != 1 || r.mkfs() != 1 {
					t.Errorf("%s: mounts %v", which, r.Kernel.Mounts())
				}
			}
			must(t, r.Unpublish(t.Context(), podGone(r)))
			p.clean(r)
			if d := p.deleted; len(d) != 1 || string(d[0].State) != "state of v" {
				t.Errorf("%s: deleted %+v", which, d)
			}
		}
	}
}

// TestPodRecordUnreadable: the volume is left alone, by both of its IDs.
func TestPodRecordUnreadable(t *testing.T) {
	for _, which := range []string{"ephemeral-*", "stage-*"} {
		r, p := newPodRig(t)
		must(t, r.Publish(t.Context(), podRequest(r)))
		must(t, r.Close())
		files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", which))
		must(t, err)
		before, err := os.ReadFile(files[0])
		must(t, err)
		must(t, os.WriteFile(files[0], []byte(`{"version": 99}`), 0o600))
		must(t, r.Restart())
		wantKind(t, r.Unpublish(t.Context(), podGone(r)), backends.ErrUnavailable)
		if r.mountsAt(r.target) != 1 || len(p.deleted) > 0 {
			t.Errorf("%s: touched", which)
		}
		must(t, r.Close())
		must(t, os.WriteFile(files[0], before, 0o600))
		must(t, r.Restart())
		must(t, r.Unpublish(t.Context(), podGone(r)))
		p.clean(r)
	}
}

// TestPodOfAnother: a backend that gives one volume twice does not get the first
// pod's deleted.
func TestPodOfAnother(t *testing.T) {
	r, p := newPodRig(t)
	ctx := t.Context()
	must(t, r.Publish(ctx, podRequest(r)))
	p.answer = func(v *backends.Volume) *backends.Volume { v.ID = "own-csi-1"; return v }
	second := podRequest(r)
	second.ID, second.Path = "csi-2", r.target+"-2"
	err := r.Publish(ctx, second)
	wantKind(t, err, backends.ErrUnavailable)
	if !strings.Contains(err.Error(), r.target) {
		t.Errorf("got %v", err)
	}
	must(t, r.Unpublish(ctx, mounter.UnpublishRequest{ID: "csi-2", Path: second.Path}))
	if d := p.deleted; len(d) != 1 || d[0].VolumeID != "" || p.exist["csi-1"] == "" || r.mountsAt(r.target) != 1 {
		t.Errorf("deleted %+v, left %v", d, p.exist)
	}
	must(t, r.Unpublish(ctx, podGone(r)))
	p.clean(r)
}

func TestPodRefused(t *testing.T) {
	r, p := newPodRig(t)
	block := podRequest(r)
	block.Capability.Block = true
	wantKind(t, r.Publish(t.Context(), block), backends.ErrPrecondition)
	relative := podRequest(r)
	relative.Path = "t"
	wantKind(t, r.Publish(t.Context(), relative), backends.ErrInvalid)
	p.clean(r)
	plain := newRig(t, nil)
	wantKind(t, plain.Publish(t.Context(), podRequest(plain)), backends.ErrUnsupported)
	plain.clean()
}

// TestPodDeletionCutShort: a start goes on with it, a publish that comes instead
// begins anew.
func TestPodDeletionCutShort(t *testing.T) {
	for _, restart := range []bool{true, false} {
		r, p := newPodRig(t)
		ctx := t.Context()
		must(t, r.Publish(ctx, podRequest(r)))
		p.failOnce("delete", backends.ErrPrecondition)
		wantKind(t, r.Unpublish(ctx, podGone(r)), backends.ErrUnavailable)
		if restart {
			must(t, r.Restart())
			p.clean(r)
			continue
		}
		must(t, r.Publish(ctx, podRequest(r)))
		if len(p.created) != 2 || len(p.deleted) != 2 {
			t.Errorf("%d created, %d deleted", len(p.created), len(p.deleted))
		}
		must(t, r.Unpublish(ctx, podGone(r)))
		p.clean(r)
	}
}

// TestPodOfADirectory: what is published read-only is so from the first moment.
func TestPodOfADirectory(t *testing.T) {
	r, p := newPodRig(t)
	r.node.sources["v"] = &backends.Source{Dir: t.TempDir()}
	req := podRequest(r)
	req.ReadOnly, req.Capability.Group = true, "7"
	must(t, r.Publish(t.Context(), req))
	must(t, r.Publish(t.Context(), req))
	if m := r.Kernel.Mounts(); len(m) != 1 || !m[0].ReadOnly() || !p.created[0].ReadOnly || !p.targets[1].ReadOnly {
		t.Errorf("mounts %+v", m)
	}
	must(t, r.Unpublish(t.Context(), podGone(r)))
	p.clean(r)
}

// TestPodWithTheSameID: a backend may take the CO's ID for its own.
func TestPodWithTheSameID(t *testing.T) {
	r, p := newPodRig(t)
	ctx := t.Context()
	p.answer = func(v *backends.Volume) *backends.Volume {
		p.sources["csi-1"] = p.sources[v.ID]
		v.ID = "csi-1"
		return v
	}
	for range 2 {
		must(t, r.Publish(ctx, podRequest(r)))
	}
	if len(p.targets) != 2 || r.OwnID("csi-1") != "csi-1" || r.mountsAt(r.target) != 1 {
		t.Errorf("targets %+v", p.targets)
	}
	must(t, r.Unpublish(ctx, podGone(r)))
	p.misused = nil // the double's own ID is another
	delete(p.exist, "csi-1")
	p.clean(r)
}

// TestPodsSideBySide: many pods at once, published and unpublished.
func TestPodsSideBySide(t *testing.T) {
	n := newNode()
	n.sources["v"] = &backends.Source{Dir: t.TempDir()}
	p := newPods(n)
	e := mountertest.New(t, p, nil)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 16 {
		req := mounter.PublishRequest{
			ID: fmt.Sprint("csi-", i/2), Ephemeral: true, Path: filepath.Join(dir, fmt.Sprint("t", i/2)),
			Capability: backends.Capability{Mode: backends.SingleNodeWriter},
		}
		wg.Go(func() {
			for range 10 {
				if err := e.Publish(t.Context(), req); err != nil {
					t.Error(err)
				}
				if err := e.Unpublish(t.Context(), mounter.UnpublishRequest{ID: req.ID, Path: req.Path}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if m := e.Kernel.Mounts(); len(m) > 0 || len(p.exist) > 0 || len(p.misused) > 0 || len(e.Volumes()) > 0 {
		t.Errorf("left %v, %v, %v, %v", m, p.exist, p.misused, e.Volumes())
	}
}
