package backendtest

import (
	"context"

	"github.com/csikit/csikit/backends"
)

// ephemeral makes a volume of a pod's own. Undone by ID alone: the driver died
// before CreateEphemeral returned.
func (t *T) ephemeral() task {
	req := backends.CreateEphemeralRequest{
		ID: "csi-" + t.name(), Parameters: t.cfg.Ephemeral, Capability: t.capability(), Secrets: t.cfg.secrets(),
	}
	made := ""
	return task{
		do: func(ctx context.Context) (any, error) {
			v, err := t.n.EphemeralProvisioner.CreateEphemeral(ctx, req)
			if t.watch("CreateEphemeral", err) != nil {
				return nil, err
			}
			made = v.ID
			return v, nil
		},
		done: func(result any) {
			v := result.(*backends.Volume)
			t.valid(v)
			t.opened(v, req.Owner)
		},
		undo: func(ctx context.Context) error {
			if src := t.open[made]; src != nil {
				if err := t.closeVolume(ctx, made, src.State); err != nil {
					return err
				}
			}
			del := backends.DeleteEphemeralRequest{ID: req.ID, VolumeID: made}
			return t.watch("DeleteEphemeral", t.n.EphemeralProvisioner.DeleteEphemeral(ctx, del))
		},
		gone: func() {
			if made != "" {
				_, err := t.b.Node.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: made, Capability: req.Capability})
				t.noVolume("OpenVolume of a deleted ephemeral volume", err, made)
			}
		},
	}
}

// opened opens an ephemeral volume, which is attached nowhere.
func (t *T) opened(v *backends.Volume, owner backends.Owner) {
	t.Helper()
	src, err := t.tryOpen(t.Context(), backends.OpenVolumeRequest{
		ID: v.ID, Capability: t.capability(), Context: v.Context, Owner: owner, Secrets: t.cfg.secrets(),
	})
	t.must("OpenVolume of an ephemeral volume", err)
	t.validSource(src)
}

var ephemeralChecks = []check{
	{
		"ephemeral/never made", `VolumeID is "" when the driver died before CreateEphemeral returned.`, "Node EphemeralProvisioner",
		func(t *T) {
			for _, id := range hostileIDs("csi-unknown-to-any-backend") {
				t.must("DeleteEphemeral of a volume that was never made", t.n.EphemeralProvisioner.DeleteEphemeral(t.Context(), backends.DeleteEphemeralRequest{ID: id}))
			}
		},
	},
	{
		"ephemeral/two pods", "the CO's, unique to the pod and volume", "Node EphemeralProvisioner",
		func(t *T) {
			a, b := t.ephemeral(), t.ephemeral()
			va, err1 := a.do(t.Context())
			vb, err2 := b.do(t.Context())
			t.must("CreateEphemeral", err1)
			t.must("CreateEphemeral", err2)
			if va.(*backends.Volume).ID == vb.(*backends.Volume).ID {
				t.Errorf("two pods have one volume %s", va.(*backends.Volume).ID)
			}
			t.must("DeleteEphemeral", a.undo(t.Context()))
			a.gone()
			b.done(vb)
			t.must("DeleteEphemeral", b.undo(t.Context()))
		},
	},
}
