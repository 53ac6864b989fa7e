package mounter_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// TestMountGroups: by the mount option where the file system has one, else by the
// group of the root; and what is read-only is not changed.
func TestMountGroups(t *testing.T) {
	remote := func(fsType string, options ...string) *backends.Source {
		return &backends.Source{Mount: &backends.Mount{Source: "server:/x", FSType: fsType, Options: options, Remote: true}}
	}
	for name, tc := range map[string]struct {
		source   *backends.Source // nil: the disk
		readOnly bool
		option   bool
		root     int
	}{
		"device":            {nil, false, false, 2000},
		"directory":         {&backends.Source{Dir: t.TempDir()}, false, false, 2000},
		"nfs":               {remote("nfs4"), false, false, 2000},
		"cifs":              {remote("cifs"), false, true, 0},
		"cifs with another": {remote("cifs", "gid=1", "vers=3"), false, true, 0},
		"cifs, read-only":   {remote("cifs"), true, true, 0},
		"nfs, read-only":    {remote("nfs4"), true, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			if tc.source != nil {
				r.node.sources["v"] = tc.source
			}
			stage, publish := r.stageRequest(), r.publishRequest()
			stage.Capability.Group, stage.Capability.FSType = "2000", ""
			if tc.readOnly {
				stage.Capability.Mode = backends.MultiNodeReader
			}
			publish.Capability = stage.Capability
			for range 2 {
				must(t, r.Stage(t.Context(), stage))
				must(t, r.Publish(t.Context(), publish))
			}
			options := r.Kernel.Mounts()[0].Super
			if slices.Contains(options, "gid=2000") != tc.option || tc.option && options[len(options)-1] != "gid=2000" {
				t.Errorf("options %v", options)
			}
			if got := r.Kernel.Group(r.staging); got != tc.root {
				t.Errorf("the root belongs to group %d", got)
			}
			other := publish
			other.Path += "-2"
			other.Capability.Group = "3000"
			wantKind(t, r.Publish(t.Context(), other), backends.ErrPrecondition)
			other.Capability.Group = ""
			must(t, r.Publish(t.Context(), other))
			must(t, r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "v", Path: other.Path}))
			stage.Capability.Group = "3000"
			wantKind(t, r.Stage(t.Context(), stage), backends.ErrIncompatible)
			second := stage
			second.Path += "-2"
			wantKind(t, r.Stage(t.Context(), second), backends.ErrIncompatible)
			r.unpublish()
			r.unstage()
			r.clean()
		})
	}
}

func TestMountGroupRefused(t *testing.T) {
	for _, group := range []string{"wheel", "-1", "4294967295", "4294967296", "1.5", " 1"} {
		r := newRig(t, nil)
		stage := r.stageRequest()
		stage.Capability.Group = group
		wantKind(t, r.Stage(t.Context(), stage), backends.ErrInvalid)
		r.clean()
	}
}

// TestMountGroupFails: the CO comes back, and then it is done.
func TestMountGroupFails(t *testing.T) {
	r := newRig(t, nil)
	r.Kernel.Fail("SetGroup", 1, errors.New("operation not permitted"))
	stage := r.stageRequest()
	stage.Capability.Group = "2000"
	err := r.Stage(t.Context(), stage)
	wantKind(t, err, backends.ErrUnavailable)
	if !strings.Contains(err.Error(), "group 2000") {
		t.Errorf("got %v", err)
	}
	must(t, r.Stage(t.Context(), stage))
	if got := r.Kernel.Group(r.staging); got != 2000 || r.mountsAt(r.staging) != 1 {
		t.Errorf("group %d", got)
	}
	r.unstage()
	r.clean()
}

// statsNode is a node with figures of its own.
type statsNode struct {
	*node
	answer *backends.VolumeStats
	asked  backends.VolumeStatsRequest
}

func (s *statsNode) VolumeStats(_ context.Context, req backends.VolumeStatsRequest) (*backends.VolumeStats, error) {
	s.asked = req
	return s.answer, s.fail["stats"]
}

// TestStatsReporter: the backend's figures replace those of statfs, for mounted
// volumes.
func TestStatsReporter(t *testing.T) {
	var n *statsNode
	r := newRig(t, func(x *node) backends.Node { n = &statsNode{node: x}; return n })
	r.stage()
	r.publish()
	req := mounter.StatsRequest{ID: "v", Path: r.target}
	_, err := r.Stats(t.Context(), req)
	wantKind(t, err, backends.ErrUnavailable)
	n.answer = &backends.VolumeStats{Total: 5, Used: 2}
	got, err := r.Stats(t.Context(), req)
	if err != nil || got.Total != 5 || got.Used != 2 || n.asked.ID != "v" || n.asked.Path != r.target || string(n.asked.State) != "state of v" {
		t.Errorf("got %+v, %v; asked %+v", got, err, n.asked)
	}
	n.fail["stats"] = backends.ErrDataLoss
	_, err = r.Stats(t.Context(), req)
	wantKind(t, err, backends.ErrDataLoss)
	r.unpublish()
	r.unstage()
	r.clean()
}
