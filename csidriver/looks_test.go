package csidriver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
)

// TestDeleteGroupLooks whether a member outlived its group, and at none that is
// not the group's.
func TestDeleteGroupLooks(t *testing.T) {
	r, d := startGroups(t, nil)
	members := membersIn(r.group(t))
	kept := *d.snapshots[members[0]]
	d.hook = func(_ context.Context, method string) error {
		if method == "DeleteGroupSnapshot" { // and forgets a member
			d.forget(members...)
			d.change(kept.ID, func(s *backends.Snapshot) { *s = kept })
			delete(d.groups, "gid-g")
			return backends.GroupNotFound("gid-g")
		}
		return nil
	}
	for _, q := range []*csi.DeleteVolumeGroupSnapshotRequest{deleteGroup("gid-g"), deleteGroup("gid-g", members...)} {
		_, err := r.DeleteVolumeGroupSnapshot(t.Context(), q)
		wantCode(t, err, codes.Unavailable, "its member", kept.ID, "is there")
	}
	for _, failure := range []error{errors.New("the array is away"), backends.ErrPermission} {
		d.hook = hookOn("Snapshot", func(context.Context) error { return failure })
		_, err := r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g", members...))
		wantCode(t, err, codes.Unavailable, "cannot be looked up")
	}
	d.hook = nil
	for _, other := range []string{"", "gid-h"} {
		d.change(kept.ID, func(s *backends.Snapshot) { s.GroupID = other })
		_, err := r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g", members...))
		wantCode(t, err, codes.OK)
	}
}

// TestDetachLooks where the backend lists the volume when it does not know, and
// after detaching it from every node.
func TestDetachLooks(t *testing.T) {
	for name, tc := range map[string]struct {
		failure  error // of DetachVolume; nil: OK, and nothing is done
		node, at string
		gone     bool // the volume
		lookup   error
		want     codes.Code
	}{
		"node gone, not listed":     {backends.NodeNotFound("n1"), "n1", "n2", false, nil, codes.OK},
		"node gone, listed":         {backends.NodeNotFound("n1"), "n1", "n1", false, nil, codes.NotFound},
		"node gone, volume too":     {backends.NodeNotFound("n1"), "n1", "n1", true, nil, codes.OK},
		"node gone, who knows":      {backends.NodeNotFound("n1"), "n1", "n2", false, backends.ErrUnavailable, codes.Unavailable},
		"another node gone":         {backends.NodeNotFound("n2"), "n1", "n2", false, nil, codes.Unavailable},
		"volume gone":               {backends.VolumeNotFound("id-v"), "n1", "n1", true, nil, codes.OK},
		"volume gone, but there":    {backends.VolumeNotFound("id-v"), "n1", "n1", false, nil, codes.NotFound},
		"perhaps gone":              {errors.Join(backends.VolumeNotFound("id-v"), backends.ErrUnavailable), "n1", "n2", false, nil, codes.Unavailable},
		"from every node, one left": {nil, "", "n3", false, nil, codes.Unavailable},
		"from every node, gone":     {nil, "", "n3", true, nil, codes.OK},
		"from every node":           {nil, "", "", false, nil, codes.OK},
		"from every node, unknown":  {nil, "", "n3", false, errors.New("the array is away"), codes.Unavailable},
		"from every node, refused":  {nil, "", "n3", false, backends.ErrPermission, codes.Unavailable}, // not final: it is detached
		"from one node":             {nil, "n1", "n1", false, nil, codes.OK},                           // the backend's word
	} {
		t.Run(name, func(t *testing.T) {
			var a *attachments
			r := startRig(t, func(s *setup) {
				withAttacher(&a)(s)
				s.cfg.Controller = &deafDetacher{a, &tc.failure}
			})
			id := makeVolume(t, r, "v")
			if tc.at != "" {
				_, err := r.ControllerPublishVolume(t.Context(), attachReq(id, tc.at))
				wantCode(t, err, codes.OK)
			}
			if tc.gone {
				delete(a.volumes, id)
			}
			a.hook = hookOn("Volume", func(context.Context) error { return tc.lookup })
			_, err := r.ControllerUnpublishVolume(t.Context(), detachReq(id, tc.node))
			wantCode(t, err, tc.want)
		})
	}
}

// deafDetacher answers, and detaches nothing.
type deafDetacher struct {
	*attachments
	failure *error
}

func (d *deafDetacher) DetachVolume(context.Context, backends.DetachVolumeRequest) error {
	return *d.failure
}

// TestExpandLooks at the size that the volume has afterwards.
func TestExpandLooks(t *testing.T) {
	for name, tc := range map[string]struct {
		has  int64 // afterwards
		fail error // of the second lookup
		code codes.Code
		want int64
	}{
		"as said":     {2 * gi, nil, codes.OK, 2 * gi},
		"more":        {2*gi + 1<<20, nil, codes.OK, 2*gi + 1<<20},
		"not known":   {0, nil, codes.OK, 2 * gi},
		"a lie":       {gi, nil, codes.Unavailable, 0},
		"over limits": {4 * gi, nil, codes.Unavailable, 0},
		"who knows":   {2 * gi, errors.New("the array is away"), codes.Unavailable, 0},
		"refused":     {2 * gi, backends.ErrFailed, codes.Unavailable, 0}, // not final: it is bigger
		"gone":        {2 * gi, backends.VolumeNotFound("v000000"), codes.Unavailable, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var r *rig
			r = startRig(t, func(s *setup) {
				s.backend.hook = hookOn("ExpandVolume", func(context.Context) error {
					r.backend.hook = hookOn("Volume", func(context.Context) error { return tc.fail })
					r.backend.volumes["v000000"].Capacity = tc.has
					return nil
				})
				s.backend.without = func(c *backends.ControllerFeatures, _ *backends.NodeFeatures) {
					c.Expander = hookedExpander{s.backend}
				}
			})
			r.backend.add(1, nil)
			got, err := r.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
				VolumeId: "v000000", CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * gi, LimitBytes: 3 * gi},
			})
			wantCode(t, err, tc.code)
			if got.GetCapacityBytes() != tc.want {
				t.Errorf("it has %d bytes", got.GetCapacityBytes())
			}
		})
	}
}

// hookedExpander says that it did what was asked; the hook does.
type hookedExpander struct{ *memory }

func (e hookedExpander) ExpandVolume(ctx context.Context, req backends.ExpandVolumeRequest) (int64, error) {
	return req.Size, e.before(ctx, "ExpandVolume")
}

func TestLeak(t *testing.T) {
	for _, tc := range []struct {
		key, secret, context string
		want                 bool
	}{
		{"any", "canary-7", "canary-7", true},
		{"any", "canary7", "canary7", false}, // as short as words
		{"password", "canary-canary", "https://u:canary-canary@host/", true},
		{"adminKey", "canary-canary", "canary-canary,x", true},
		{"node.session.auth.password", "canary-canary", "x canary-canary", true},
		{"password", "canary-7", "x canary-7", false},
		{"server", "storage.example.com", "https://storage.example.com:8443", false},
		{"userID", "administrator", "/home/administrator/1", false},
	} {
		field, key := leak(map[string]string{"pool": "a", "c": tc.context}, backends.NewSecrets(map[string]string{tc.key: tc.secret, "other": "x"}))
		if got := field == "c" && key == tc.key; got != tc.want || !got && field != "" {
			t.Errorf("%+v: %q, %q", tc, field, key)
		}
	}
}

func TestSecretKey(t *testing.T) {
	for key, want := range map[string]bool{
		"a": true, "A-b_c.9": true, "csi.storage.k8s.io/serviceAccount.tokens": true,
		"": false, "a/b": false, "a b": false, "ä": false, "csi.storage.k8s.io/": false, "csi.storage.k8s.io/a/b": false,
	} {
		if secretKey(key) != want {
			t.Errorf("%q: %v", key, !want)
		}
	}
}

// TestMissingTool: a node that cannot make its own file system is not healthy,
// until the tool is there.
func TestMissingTool(t *testing.T) {
	for _, tc := range []struct {
		t    backends.Traits
		want string
	}{
		{backends.Traits{Devices: true, Filesystem: true}, "mkfs.ext4"},
		{backends.Traits{Devices: true, Filesystem: true, FSTypes: []string{"xfs", "ext4"}}, "mkfs.xfs"},
		{backends.Traits{Devices: true, Block: true}, ""},
		{backends.Traits{Filesystem: true}, ""},
	} {
		if got := strings.Join(toolsFor(&tc.t), " "); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.t, got, tc.want)
		}
	}
	r, tool := startRig(t, nil), filepath.Join(t.TempDir(), "mkfs.own")
	r.driver.tools = []string{tool}
	probe := func(want codes.Code, words ...string) {
		t.Helper()
		_, err := r.Probe(t.Context(), &csi.ProbeRequest{})
		wantCode(t, err, want, words...)
	}
	probe(codes.FailedPrecondition, "not healthy", "mkfs.own is not installed")
	for _, mode := range []os.FileMode{0o600, 0o700} {
		if err := errors.Join(os.WriteFile(tool, nil, mode), os.Chmod(tool, mode)); err != nil {
			t.Fatal(err)
		}
		if mode == 0o600 {
			probe(codes.FailedPrecondition, "no executable")
		}
	}
	probe(codes.OK)
	if err := os.Remove(tool); err != nil {
		t.Fatal(err)
	}
	probe(codes.OK) // it is not looked for again
	own, err := New(Config{Name: "a.b", Version: "1", Traits: memoryTraits(), Controller: newMemory(), Node: newMemory()},
		&Options{NodeID: "n", StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.server.grpc.Stop)
	if len(own.tools) != 1 || len(r.driver.tools) != 1 {
		t.Errorf("looks for %q", own.tools)
	}
}
