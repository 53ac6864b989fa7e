package csidriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

// attachments is memory whose volumes are attached to nodes n1, n2 and n3.
type attachments struct {
	*memory
	at map[string]map[string]backends.AttachVolumeRequest // by volume and node
	// answer and failure replace what AttachVolume and DetachVolume answer.
	answer  map[string]string
	failure error
}

func withAttacher(a **attachments) func(*setup) {
	return func(s *setup) {
		*a = &attachments{memory: s.backend, at: make(map[string]map[string]backends.AttachVolumeRequest)}
		s.cfg.Controller = *a
		s.cfg.Traits.AttachReadOnly = true
		s.cfg.Traits.Modes = append(s.cfg.Traits.Modes, backends.MultiNodeMultiWriter)
	}
}

func (a *attachments) AttachVolume(ctx context.Context, req backends.AttachVolumeRequest) (map[string]string, error) {
	if err := cmp.Or(a.before(ctx, "AttachVolume"), a.failure); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Contains([]string{"n1", "n2", "n3"}, req.NodeID) {
		return nil, backends.NodeNotFound(req.NodeID)
	}
	if a.at[req.ID] == nil {
		a.at[req.ID] = make(map[string]backends.AttachVolumeRequest)
	}
	if was, ok := a.at[req.ID][req.NodeID]; ok && (was.ReadOnly != req.ReadOnly || was.Capability.Block != req.Capability.Block) {
		return nil, backends.ErrIncompatible
	}
	a.at[req.ID][req.NodeID] = req
	a.list(req.ID)
	if a.answer != nil {
		return a.answer, nil
	}
	return map[string]string{"node": req.NodeID}, nil
}

func (a *attachments) DetachVolume(ctx context.Context, req backends.DetachVolumeRequest) error {
	if err := cmp.Or(a.before(ctx, "DetachVolume"), a.failure); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if req.NodeID == "" {
		delete(a.at, req.ID)
	}
	delete(a.at[req.ID], req.NodeID)
	a.list(req.ID)
	return nil
}

// list writes into the volume where it is attached.
func (a *attachments) list(id string) {
	if v, ok := a.volumes[id]; ok {
		c := *v
		c.Nodes = slices.Sorted(maps.Keys(a.at[id]))
		a.volumes[id] = &c
	}
}

func (a *attachments) ListsPublishedNodes() {}

func attachReq(id, node string) *csi.ControllerPublishVolumeRequest {
	return &csi.ControllerPublishVolumeRequest{VolumeId: id, NodeId: node, VolumeCapability: mountCap()}
}

func detachReq(id, node string) *csi.ControllerUnpublishVolumeRequest {
	return &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: node}
}

func makeVolume(t *testing.T, r *rig, name string) string {
	t.Helper()
	made, err := r.CreateVolume(t.Context(), createReq(name))
	wantCode(t, err, codes.OK)
	return made.GetVolume().GetVolumeId()
}

// nodesOf is what both RPCs say of one volume.
func nodesOf(t *testing.T, r *rig, id string) []string {
	t.Helper()
	got, err := r.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: id})
	wantCode(t, err, codes.OK)
	list, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	wantCode(t, err, codes.OK)
	for _, e := range list.GetEntries() {
		if e.GetVolume().GetVolumeId() != id {
			continue
		}
		if e.GetStatus() == nil || !slices.Equal(e.GetStatus().GetPublishedNodeIds(), got.GetStatus().GetPublishedNodeIds()) {
			t.Errorf("listed with %v, got with %v", e.GetStatus(), got.GetStatus())
		}
	}
	return got.GetStatus().GetPublishedNodeIds()
}

func TestAttach(t *testing.T) {
	var a *attachments
	r, ctx := startRig(t, withAttacher(&a)), t.Context()
	id := makeVolume(t, r, "v")
	if n := nodesOf(t, r, id); len(n) > 0 {
		t.Errorf("attached to %v", n)
	}
	req := attachReq(id, "n1")
	req.VolumeContext = map[string]string{"pool": "a", "storage.kubernetes.io/csiProvisionerIdentity": "p", "csi.storage.k8s.io/pv/name": "pv"}
	req.Secrets = map[string]string{"key": "canary-canary"}
	first, err := r.ControllerPublishVolume(ctx, req)
	wantCode(t, err, codes.OK)
	second, err := r.ControllerPublishVolume(ctx, req)
	wantCode(t, err, codes.OK)
	if !proto.Equal(first, second) || first.GetPublishContext()["node"] != "n1" {
		t.Errorf("answers %v and %v", first, second)
	}
	got := a.at[id]["n1"]
	if v, _ := got.Secrets.Lookup("key"); v != "canary-canary" || len(got.Context) != 1 || got.Owner.PV != "pv" || got.Capability.Mode != backends.SingleNodeWriter {
		t.Errorf("the backend got %+v", got)
	}
	if n := nodesOf(t, r, id); !slices.Equal(n, []string{"n1"}) {
		t.Errorf("attached to %v", n)
	}
	for range 2 {
		_, err = r.ControllerUnpublishVolume(ctx, detachReq(id, "n1"))
		wantCode(t, err, codes.OK)
	}
	_, err = r.ControllerUnpublishVolume(ctx, detachReq("unknown", "unknown"))
	wantCode(t, err, codes.OK)
}

func TestAttachRefuses(t *testing.T) {
	var a *attachments
	r, ctx := startRig(t, withAttacher(&a)), t.Context()
	id := makeVolume(t, r, "v")
	publish := func(want codes.Code, change func(*csi.ControllerPublishVolumeRequest), words ...string) {
		t.Helper()
		req := attachReq(id, "n1")
		change(req)
		_, err := r.ControllerPublishVolume(ctx, req)
		wantCode(t, err, want, words...)
	}
	publish(codes.InvalidArgument, func(r *csi.ControllerPublishVolumeRequest) { r.NodeId = strings.Repeat("n", 257) }, "node_id")
	publish(codes.InvalidArgument, func(r *csi.ControllerPublishVolumeRequest) {
		r.VolumeCapability = capMode(csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER)
	}, "access mode")
	publish(codes.NotFound, func(r *csi.ControllerPublishVolumeRequest) { r.VolumeId = "unknown" }, "volume")
	publish(codes.NotFound, func(r *csi.ControllerPublishVolumeRequest) { r.NodeId = strings.Repeat("n", 256) }, "node")
	publish(codes.OK, func(*csi.ControllerPublishVolumeRequest) {})
	publish(codes.AlreadyExists, func(r *csi.ControllerPublishVolumeRequest) { r.Readonly = true })
	publish(codes.AlreadyExists, func(r *csi.ControllerPublishVolumeRequest) { r.VolumeCapability = blockCap() })
	publish(codes.FailedPrecondition, func(r *csi.ControllerPublishVolumeRequest) { r.NodeId = "n2" }, "node n1", "in use")

	a.traitless(t)
	for _, tc := range []struct {
		failure error
		want    codes.Code
	}{
		{backends.VolumeNotFound(id), codes.NotFound},
		{backends.VolumeNotFound("w"), codes.Unavailable},
		{backends.NodeNotFound("n1"), codes.NotFound},
		{backends.NodeNotFound("n2"), codes.Unavailable},
		{backends.ErrLimit, codes.ResourceExhausted},
		{fmt.Errorf("%w at n7", backends.ErrInUse), codes.FailedPrecondition},
		{errors.New("timeout of the array"), codes.Unavailable},
	} {
		a.failure = tc.failure
		publish(tc.want, func(*csi.ControllerPublishVolumeRequest) {})
		_, err := r.ControllerUnpublishVolume(ctx, detachReq(id, "n1"))
		wantCode(t, err, tc.want)
	}
	a.failure = backends.NodeNotFound("")
	_, err := r.ControllerUnpublishVolume(ctx, detachReq(id, ""))
	wantCode(t, err, codes.Unavailable) // nobody asked for node ""
}

// traitless: without AttachReadOnly a read-only attachment is refused, with
// nothing asked of the backend.
func (a *attachments) traitless(t *testing.T) {
	t.Helper()
	var b *attachments
	r := startRig(t, func(s *setup) { withAttacher(&b)(s); s.cfg.Traits.AttachReadOnly = false })
	req := attachReq(makeVolume(t, r, "v"), "n1")
	req.Readonly = true
	_, err := r.ControllerPublishVolume(t.Context(), req)
	wantCode(t, err, codes.InvalidArgument, "PUBLISH_READONLY")
	if len(b.at) > 0 {
		t.Error("attached all the same")
	}
}

func TestAttachAnswers(t *testing.T) {
	var a *attachments
	r, ctx := startRig(t, withAttacher(&a)), t.Context()
	id := makeVolume(t, r, "v")
	for say, answer := range map[string]map[string]string{
		"more than 4096 bytes": {"a": strings.Repeat("x", 5000)},
		"not UTF-8":            {"a": "\xff"},
		"repeats secret":       {"a": "canary-canary"},
	} {
		a.answer = answer
		req := attachReq(id, "n1")
		req.Secrets = map[string]string{"key": "canary-canary"}
		_, err := r.ControllerPublishVolume(ctx, req)
		wantCode(t, err, codes.Unavailable, say)
	}
	a.answer = nil
	a.mu.Lock()
	v := *a.volumes[id]
	v.Nodes = []string{""}
	a.volumes[id] = &v
	a.mu.Unlock()
	_, err := r.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: id})
	wantCode(t, err, codes.Internal, "without an ID")
}

// TestAttachByChecker: what this very volume cannot do is refused before it is
// attached.
func TestAttachByChecker(t *testing.T) {
	var a *attachments
	r, ctx := startRig(t, withAttacher(&a)), t.Context()
	id := makeVolume(t, r, "v")
	a.check = func(req backends.CheckVolumeRequest) error {
		if req.Volume == nil || req.Volume.ID != id || len(req.Capabilities) != 1 {
			t.Errorf("asked about %+v", req)
		}
		return fmt.Errorf("%w: not this one", backends.ErrInvalid)
	}
	_, err := r.ControllerPublishVolume(ctx, attachReq(id, "n1"))
	wantCode(t, err, codes.InvalidArgument, "not this one")
	if len(a.at) > 0 {
		t.Error("attached all the same")
	}
}

func TestDetachEverywhere(t *testing.T) {
	var a *attachments
	r, ctx := startRig(t, withAttacher(&a)), t.Context()
	id := makeVolume(t, r, "v")
	for _, node := range []string{"n1", "n2", "n3"} {
		req := attachReq(id, node)
		req.VolumeCapability = capMode(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)
		_, err := r.ControllerPublishVolume(ctx, req)
		wantCode(t, err, codes.OK)
	}
	_, err := r.ControllerUnpublishVolume(ctx, detachReq(id, "n2"))
	wantCode(t, err, codes.OK)
	if n := nodesOf(t, r, id); !slices.Equal(n, []string{"n1", "n3"}) {
		t.Errorf("attached to %v", n)
	}
	_, err = r.ControllerUnpublishVolume(ctx, detachReq(id, ""))
	wantCode(t, err, codes.OK)
	if n := nodesOf(t, r, id); len(n) > 0 {
		t.Errorf("attached to %v", n)
	}
}

// attachHolding makes AttachVolume stop until released or cancelled.
func attachHolding(a **attachments) (change func(*setup), begun, release chan struct{}) {
	begun, release = make(chan struct{}, 10), make(chan struct{})
	return func(s *setup) {
		withAttacher(a)(s)
		s.opts.Wait = 1 // the least there is
		s.backend.hook = func(ctx context.Context, m string) error {
			if m != "AttachVolume" {
				return nil
			}
			begun <- struct{}{}
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return errors.New("the array: call cancelled")
			}
		}
	}, begun, release
}

// TestAttachKeys: two nodes of a multi-node volume side by side; of a single-node
// volume one after the other; and no delete meanwhile.
func TestAttachKeys(t *testing.T) {
	var a *attachments
	change, begun, release := attachHolding(&a)
	r, ctx := startRig(t, change), t.Context()
	id := makeVolume(t, r, "v")
	done := make(chan error, 2)
	attach := func(node string) {
		req := attachReq(id, node)
		req.VolumeCapability = capMode(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)
		_, err := r.ControllerPublishVolume(ctx, req)
		done <- err
	}
	go attach("n1")
	go attach("n2")
	<-begun
	<-begun // both run
	_, err := r.ControllerPublishVolume(ctx, attachReq(id, "n3"))
	wantCode(t, err, codes.Aborted, "ControllerPublishVolume "+id+" at node n")
	_, err = r.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
	wantCode(t, err, codes.Aborted)
	changed := attachReq(id, "n1")
	_, err = r.ControllerPublishVolume(ctx, changed)
	wantCode(t, err, codes.Aborted, "at node n") // both are in its way, the earlier one is named
	close(release)
	for range 2 {
		wantCode(t, <-done, codes.OK)
	}
}

// TestDetachNegatesAttach: of the same node, or of every node when none is named.
func TestDetachNegatesAttach(t *testing.T) {
	for node, want := range map[string]codes.Code{"n1": codes.OK, "": codes.OK, "n2": codes.Aborted} {
		var a *attachments
		change, begun, release := attachHolding(&a)
		r, ctx := startRig(t, func(s *setup) {
			change(s)
			if want == codes.OK {
				s.opts.Wait = 0
			}
		}), t.Context()
		id := makeVolume(t, r, "v")
		attached := make(chan error, 1)
		go func() { _, err := r.ControllerPublishVolume(ctx, attachReq(id, "n1")); attached <- err }()
		<-begun
		_, err := r.ControllerUnpublishVolume(ctx, detachReq(id, node))
		wantCode(t, err, want)
		if want == codes.OK {
			wantCode(t, <-attached, codes.Aborted)
			continue
		}
		close(release)
		wantCode(t, <-attached, codes.OK)
	}
}

// TestAttachJoins: an equal call joins, whatever its secrets are.
func TestAttachJoins(t *testing.T) {
	var a *attachments
	change, begun, release := attachHolding(&a)
	r, ctx := startRig(t, func(s *setup) { change(s); s.opts.Wait = 0 }), t.Context()
	id := makeVolume(t, r, "v")
	done := make(chan error, 2)
	attach := func(secret string) {
		req := attachReq(id, "n1")
		req.Secrets = map[string]string{"key": secret}
		_, err := r.ControllerPublishVolume(ctx, req)
		done <- err
	}
	go attach("a")
	<-begun
	go attach("b")
	waitJoined(r)
	close(release)
	for range 2 {
		wantCode(t, <-done, codes.OK)
	}
	if len(begun) != 0 {
		t.Error("attached twice")
	}
}

// TestOfflineExpandAttached: what is attached is in use.
func TestOfflineExpandAttached(t *testing.T) {
	var a *attachments
	r, ctx := startRig(t, func(s *setup) { withAttacher(&a)(s); s.cfg.Traits.OfflineExpand = true }), t.Context()
	id := makeVolume(t, r, "v")
	_, err := r.ControllerPublishVolume(ctx, attachReq(id, "n1"))
	wantCode(t, err, codes.OK)
	expand := &csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * gi}}
	_, err = r.ControllerExpandVolume(ctx, expand)
	wantCode(t, err, codes.FailedPrecondition, "node n1")
	_, err = r.ControllerUnpublishVolume(ctx, detachReq(id, ""))
	wantCode(t, err, codes.OK)
	_, err = r.ControllerExpandVolume(ctx, expand)
	wantCode(t, err, codes.OK)
}
