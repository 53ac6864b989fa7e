package backendtest

import (
	"context"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
)

func (t *T) attachRequest(v *backends.Volume, nodeID string) backends.AttachVolumeRequest {
	return backends.AttachVolumeRequest{
		ID: v.ID, NodeID: nodeID, Capability: t.capability(), Context: v.Context, Secrets: t.cfg.secrets(),
	}
}

func (t *T) attach(ctx context.Context, req backends.AttachVolumeRequest) (map[string]string, error) {
	pub, err := t.c.Attacher.AttachVolume(ctx, req)
	return pub, t.watch("AttachVolume", err)
}

func (t *T) detach(ctx context.Context, id, nodeID string) error {
	return t.watch("DetachVolume", t.c.Attacher.DetachVolume(ctx, backends.DetachVolumeRequest{ID: id, NodeID: nodeID, Secrets: t.cfg.secrets()}))
}

func (t *T) attaching() task {
	t.want(t.b.NodeID != "", "Backend.NodeID")
	v := t.create(t.name())
	return task{
		do: func(ctx context.Context) (any, error) { return t.attach(ctx, t.attachRequest(v, t.b.NodeID)) },
		done: func(result any) {
			t.validMap("publish context", result.(map[string]string))
			t.published(v.ID, t.b.NodeID)
		},
		undo: func(ctx context.Context) error { return t.detach(ctx, v.ID, t.b.NodeID) },
		gone: func() { t.published(v.ID); t.must("DeleteVolume", t.remove(t.Context(), v.ID)) },
	}
}

func (t *T) detaching() task {
	t.want(t.b.NodeID != "", "Backend.NodeID")
	v := t.create(t.name())
	_, err := t.attach(t.Context(), t.attachRequest(v, t.b.NodeID))
	t.must("AttachVolume", err)
	return task{
		do:   func(ctx context.Context) (any, error) { return nil, t.detach(ctx, v.ID, t.b.NodeID) },
		done: func(any) { t.published(v.ID) },
	}
}

// published compares Volume.Nodes, if the backend says that they are complete.
func (t *T) published(id string, want ...string) {
	t.Helper()
	if t.c.PublishedNodesLister == nil {
		return
	}
	vols, _, err := t.c.PublishedNodesLister.ListVolumes(t.Context(), backends.ListVolumesRequest{Page: backends.Page{Limit: 1000}})
	t.must("ListVolumes", err)
	i := slices.IndexFunc(vols, func(v *backends.Volume) bool { return v.ID == id })
	if i < 0 {
		t.Errorf("volume %s is not in the list", id)
		return
	}
	got := slices.Sorted(slices.Values(vols[i].Nodes))
	if !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("volume %s is attached to %q, the list says %q", id, want, got)
	}
}

// surely fails the check unless err is nil, or says that nobody knows of this.
func (t *T) surely(call string, err, missing error) {
	t.Helper()
	t.must(call, ignoreMissing(err, missing))
}

// singleNode is a mode of one node that Traits has; 0: none.
func (t *T) singleNode() backends.AccessMode {
	for _, m := range t.b.Traits.Modes {
		if !m.MultiNode() {
			return m
		}
	}
	return 0
}

var attachChecks = []check{
	{
		"attach/with other arguments", "with others ErrIncompatible", "Controller Attacher",
		func(t *T) {
			t.want(t.b.NodeID != "", "Backend.NodeID")
			v := t.create(t.name())
			req := t.attachRequest(v, t.b.NodeID)
			pub, err := t.attach(t.Context(), req)
			t.must("AttachVolume", err)
			other := req
			other.ReadOnly = !other.ReadOnly
			if _, err := t.attach(t.Context(), other); err != nil || t.b.Traits.AttachReadOnly {
				t.wantKind("AttachVolume with other arguments", err, backends.ErrIncompatible)
			}
			again, err := t.attach(t.Context(), req)
			t.must("AttachVolume again", err)
			t.same("publish context", again, pub)
		},
	},
	{
		"attach/elsewhere", "a single-node volume elsewhere is ErrInUse, whose text names that node", "Controller Attacher",
		func(t *T) {
			t.want(t.b.NodeID != "" && t.b.OtherNode != "", "Backend.NodeID and OtherNode")
			v, mode := t.create(t.name()), t.singleNode()
			if mode == 0 {
				t.Skip("Traits has no mode of a single node")
			}
			req := t.attachRequest(v, t.b.NodeID)
			req.Capability.Mode = mode
			_, err := t.attach(t.Context(), req)
			t.must("AttachVolume", err)
			elsewhere := req
			elsewhere.NodeID = t.b.OtherNode
			_, err = t.attach(t.Context(), elsewhere)
			t.wantKind("AttachVolume to another node", err, backends.ErrInUse)
			if err != nil && !strings.Contains(err.Error(), t.b.NodeID) {
				t.Errorf("AttachVolume to another node does not name %s, where the volume is: %v", t.b.NodeID, err)
			}
			t.published(v.ID, t.b.NodeID)
			t.must("DetachVolume", t.detach(t.Context(), v.ID, t.b.NodeID))
			_, err = t.attach(t.Context(), elsewhere)
			t.must("AttachVolume to another node, detached from the first", err)
			t.published(v.ID, t.b.OtherNode)
		},
	},
	{
		"attach/unknown node", "an unknown node NodeNotFound.", "Controller Attacher",
		func(t *T) {
			v := t.create(t.name())
			for _, id := range []string{"node-unknown-to-any-backend", "../x", "\x00"} {
				_, err := t.attach(t.Context(), t.attachRequest(v, id))
				t.wantNotFound("AttachVolume", err, backends.KindNode, id)
				t.surely("DetachVolume from a node that is none", t.detach(t.Context(), v.ID, id), backends.NodeNotFound(id))
			}
		},
	},
	{
		"attach/unknown volume", "Not attached, and an unknown volume or node that is surely detached, is no error; a not-found says that nobody knows.", "Controller Attacher",
		func(t *T) {
			t.want(t.b.NodeID != "", "Backend.NodeID")
			v := t.create(t.name())
			t.must("DetachVolume, never attached", t.detach(t.Context(), v.ID, t.b.NodeID))
			t.must("DeleteVolume", t.remove(t.Context(), v.ID))
			t.surely("DetachVolume of a volume that is gone", t.detach(t.Context(), v.ID, t.b.NodeID), backends.VolumeNotFound(v.ID))
			_, err := t.attach(t.Context(), t.attachRequest(v, t.b.NodeID))
			t.wantNotFound("AttachVolume of a volume that is gone", err, backends.KindVolume, v.ID)
		},
	},
	{
		"attach/every node", `NodeID "" is every node.`, "Controller Attacher",
		func(t *T) {
			t.want(t.b.NodeID != "", "Backend.NodeID")
			v := t.create(t.name())
			_, err := t.attach(t.Context(), t.attachRequest(v, t.b.NodeID))
			t.must("AttachVolume", err)
			t.must("DetachVolume from every node", t.detach(t.Context(), v.ID, ""))
			t.published(v.ID)
			t.must("DeleteVolume", t.remove(t.Context(), v.ID))
		},
	},
	{
		"attach/delete", "A volume that is in use, or that its snapshots depend on, is ErrInUse and left untouched.", "Controller Attacher",
		func(t *T) {
			t.want(t.b.NodeID != "", "Backend.NodeID")
			v := t.create(t.name())
			pub, err := t.attach(t.Context(), t.attachRequest(v, t.b.NodeID))
			t.must("AttachVolume", err)
			t.wantKind("DeleteVolume of an attached volume", t.remove(t.Context(), v.ID), backends.ErrInUse)
			t.same("the volume afterwards", t.lookup(v.ID), v)
			again, err := t.attach(t.Context(), t.attachRequest(v, t.b.NodeID))
			t.must("AttachVolume again", err)
			t.same("publish context", again, pub)
		},
	},
	{
		"attach/published nodes", "PublishedNodesLister marks a VolumeLister whose Volume.Nodes are complete", "Controller Attacher PublishedNodesLister",
		func(t *T) {
			t.want(t.b.NodeID != "", "Backend.NodeID")
			attached, idle := t.create(t.name()), t.create(t.name())
			_, err := t.attach(t.Context(), t.attachRequest(attached, t.b.NodeID))
			t.must("AttachVolume", err)
			if t.cfg.Reopen != nil {
				t.reopen()
			}
			t.published(attached.ID, t.b.NodeID)
			t.published(idle.ID)
			t.must("DetachVolume", t.detach(t.Context(), attached.ID, t.b.NodeID))
			t.published(attached.ID)
		},
	},
}
