package backendtest

import (
	"github.com/csikit/csikit/backends"
)

var refusalChecks = []check{
	{
		"missing/volume", "VolumeNotFound(req.ID) is success; a not-found that names anything else is not.", "Controller",
		func(t *T) {
			v := t.create(t.name())
			t.must("DeleteVolume", t.remove(t.Context(), v.ID))
			_, err := t.volume(t.Context(), v.ID)
			t.wantNotFound("Volume", err, backends.KindVolume, v.ID)
			if err := t.b.Controller.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); err != nil {
				t.wantNotFound("DeleteVolume", err, backends.KindVolume, v.ID)
			}
			t.hostile(v.ID)
		},
	},
	{
		"missing/snapshot", "Snapshot returns the snapshot with this ID, ready or not.", "Controller Snapshotter",
		func(t *T) {
			s := t.snapshot(t.name(), t.create(t.name()).ID)
			t.must("DeleteSnapshot", t.removeSnapshot(t.Context(), s.ID))
			_, err := t.c.Snapshotter.Snapshot(t.Context(), backends.SnapshotRequest{ID: s.ID})
			t.wantNotFound("Snapshot", err, backends.KindSnapshot, s.ID)
			_, err = t.c.Snapshotter.RestoreSnapshot(t.Context(), *s, t.request(t.name()))
			t.missing("RestoreSnapshot", err, backends.KindSnapshot, s.ID)
		},
	},
	{
		"missing/source", "It must not look at a content source: the snapshot may be gone by the time the CO repeats the call.", "Controller Snapshotter",
		func(t *T) {
			s := t.readySnapshot(t.name(), t.create(t.name()).ID)
			req := t.request(t.name())
			v, err := t.provision(t.Context(), req, origin{snapshot: s})
			t.must("RestoreSnapshot", err)
			if err := t.removeSnapshot(t.Context(), s.ID); err != nil {
				t.wantKind("DeleteSnapshot of a snapshot that was restored", err, backends.ErrInUse)
				t.Skip("a snapshot stays as long as the volumes that were made of it")
			}
			t.fits(v, req, origin{snapshot: s})
			// The retry of a call whose reply was lost.
			again, err := t.provision(t.Context(), req, origin{snapshot: s})
			t.must("RestoreSnapshot again, the snapshot is gone", err)
			t.same("RestoreSnapshot again, the snapshot is gone", again, v)
		},
	},
	{
		"secrets/in errors", "given back at attach, stage and publish; the same each time, no secrets", "Controller",
		func(t *T) {
			secrets, ctx := t.cfg.secrets(), t.Context()
			req := t.request(t.name())
			req.Size, req.Range = -1, backends.CapacityRange{Required: -1}
			req.Parameters = map[string]string{"backendtest": "unknown"}
			_, err := t.b.Controller.CreateVolume(ctx, req)
			_ = t.watch("CreateVolume", err)
			_, err = t.b.Controller.Volume(ctx, backends.VolumeRequest{ID: "unknown", Secrets: secrets})
			_ = t.watch("Volume", err)
			_ = t.watch("DeleteVolume", t.b.Controller.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: "unknown", Secrets: secrets}))
			t.optionalErrors(secrets)
		},
	},
}

// optionalErrors has the optional methods fail, secrets in hand.
func (t *T) optionalErrors(secrets backends.Secrets) {
	ctx := t.Context()
	if t.c.Expander != nil {
		_, err := t.c.Expander.ExpandVolume(ctx, backends.ExpandVolumeRequest{ID: "unknown", Size: 1, Secrets: secrets})
		_ = t.watch("ExpandVolume", err)
	}
	if t.c.Modifier != nil {
		_ = t.watch("ModifyVolume", t.c.Modifier.ModifyVolume(ctx, backends.ModifyVolumeRequest{ID: "unknown", Mutable: map[string]string{"x": "y"}, Secrets: secrets}))
	}
	if t.c.Attacher != nil {
		_, err := t.c.Attacher.AttachVolume(ctx, backends.AttachVolumeRequest{ID: "unknown", NodeID: "unknown", Secrets: secrets})
		_ = t.watch("AttachVolume", err)
		_ = t.watch("DetachVolume", t.c.Attacher.DetachVolume(ctx, backends.DetachVolumeRequest{ID: "unknown", NodeID: "unknown", Secrets: secrets}))
	}
	if t.c.Snapshotter != nil {
		_, err := t.c.Snapshotter.CreateSnapshot(ctx, backends.CreateSnapshotRequest{Name: "s", VolumeID: "unknown", Secrets: secrets})
		_ = t.watch("CreateSnapshot", err)
		_, err = t.c.Snapshotter.Snapshot(ctx, backends.SnapshotRequest{ID: "unknown", Secrets: secrets})
		_ = t.watch("Snapshot", err)
		_ = t.watch("DeleteSnapshot", t.c.Snapshotter.DeleteSnapshot(ctx, backends.DeleteSnapshotRequest{ID: "unknown", Secrets: secrets}))
	}
	if t.b.Node != nil {
		_, err := t.b.Node.OpenVolume(ctx, backends.OpenVolumeRequest{ID: "unknown", Secrets: secrets})
		_ = t.watch("OpenVolume", err)
	}
}
