package backendtest

import (
	"context"

	"github.com/csikit/csikit/backends"
)

// The operations, and what holds when each is done.
var operations = []operation{
	{
		name: "create volume", needs: "Controller", opposite: true,
		holds: "CreateVolume makes the volume called req.Name, or finishes or replaces a half-made one.",
		prepare: func(t *T) task {
			return t.provisioning(t.request(t.name()), origin{})
		},
	},
	{
		name: "delete volume", needs: "Controller",
		holds: "DeleteVolume deletes a finished or half-made volume. VolumeNotFound(req.ID) is success; a not-found that names anything else is not.",
		prepare: func(t *T) task {
			req := t.request(t.name())
			v := t.create(req.Name)
			return task{
				do:   func(ctx context.Context) (any, error) { return nil, t.remove(ctx, v.ID) },
				done: func(any) { t.gone(req, v.ID) },
			}
		},
	},
	{
		name: "expand volume", needs: "Controller Expander",
		holds:   "the answer is the size it has afterwards, never less than before.",
		prepare: (*T).expanding,
	},
	{
		name: "modify volume", needs: "Controller Modifier",
		holds:   "ModifyVolumeRequest is a patch of a volume's mutable parameters.",
		prepare: (*T).modifying,
	},
	{
		name: "attach volume", needs: "Controller Attacher", opposite: true,
		holds:   "Attached already with the same arguments is no error",
		prepare: (*T).attaching,
	},
	{
		name: "detach volume", needs: "Controller Attacher",
		holds:   "DetachVolume undoes it. Not attached, and an unknown volume or node that is surely detached, is no error",
		prepare: (*T).detaching,
	},
	{
		name: "create snapshot", needs: "Controller Snapshotter", opposite: true,
		holds: "CreateSnapshot returns when the snapshot is cut, with Ready false while it is still being copied. Created is the moment of the cut, and stays.",
		prepare: func(t *T) task {
			return t.snapshotting(t.name(), t.create(t.name()).ID)
		},
	},
	{
		name: "delete snapshot", needs: "Controller Snapshotter",
		holds: "The rules of Volume, FindVolume, CreateVolume and DeleteVolume hold alike.",
		prepare: func(t *T) task {
			name := t.name()
			s := t.snapshot(name, t.create(t.name()).ID)
			return task{
				do:   func(ctx context.Context) (any, error) { return nil, t.removeSnapshot(ctx, s.ID) },
				done: func(any) { t.goneSnapshot(s) },
			}
		},
	},
	{
		name: "restore snapshot", needs: "Controller Snapshotter", opposite: true,
		holds: "RestoreSnapshot is CreateVolume with a snapshot as the content source, which Volume.Source names ever after.",
		prepare: func(t *T) task {
			s := t.readySnapshot(t.name(), t.create(t.name()).ID)
			return t.provisioning(t.request(t.name()), origin{snapshot: s})
		},
	},
	{
		name: "clone volume", needs: "Controller Cloner", opposite: true,
		holds: "The rules of CreateVolume and of RestoreSnapshot hold",
		prepare: func(t *T) task {
			v := t.create(t.name())
			return t.provisioning(t.request(t.name()), origin{volume: v})
		},
	},
	{
		name: "create group snapshot", needs: "Controller GroupSnapshotter", opposite: true,
		holds:   "All members are cut at one moment or none is left behind.",
		prepare: (*T).grouping,
	},
	{
		name: "delete group snapshot", needs: "Controller GroupSnapshotter",
		holds:   "DeleteGroupSnapshotRequest names the group snapshot to delete, with all its members.",
		prepare: (*T).ungrouping,
	},
	{
		name: "open volume", needs: "Controller Node", opposite: true,
		holds:   "called again with the same request after a crash, and then returns the same Source.",
		prepare: (*T).opening,
	},
	{
		name: "close volume", needs: "Controller Node",
		holds: "It must work from req.ID and req.State alone: CSI sends no context and no secrets when it unstages. A volume that is not open, or not known any more, is no error.",
		prepare: func(t *T) task {
			v := t.usable(t.name())
			t.openVolume(v)
			state := t.open[v.ID].State
			return task{do: func(ctx context.Context) (any, error) { return nil, t.closeVolume(ctx, v.ID, state) }}
		},
	},
	{
		name: "expand volume on the node", needs: "Controller Node Expander NodeExpander",
		holds:   "NodeExpander makes the device as big as the volume",
		prepare: (*T).nodeExpanding,
	},
	{
		name: "record format", needs: "Controller Node FormatRecorder",
		holds:   "Called before mkfs (FormatStarted) and after it (FormatDone), and durable when it returns.",
		prepare: (*T).formatting,
	},
	{
		name: "prepare target", needs: "Controller Node TargetPreparer",
		holds: "TargetPreparer is told of each target path before it is bound, and again with fresh tokens and secrets when the CO republishes",
		prepare: func(t *T) task {
			v := t.usable(t.name())
			t.openVolume(v)
			req := backends.TargetRequest{ID: v.ID, Path: t.TempDir() + "/target", Context: v.Context, Secrets: t.cfg.secrets(), State: t.open[v.ID].State}
			return task{do: func(ctx context.Context) (any, error) {
				err := t.n.TargetPreparer.PrepareTarget(ctx, req)
				req.Again = true
				return nil, err
			}}
		},
	},
	{
		name: "create ephemeral volume", needs: "Node EphemeralProvisioner", opposite: true,
		holds:   "EphemeralProvisioner makes volumes that live as long as one target path.",
		prepare: (*T).ephemeral,
	},
	{
		name: "delete ephemeral volume", needs: "Node EphemeralProvisioner",
		holds: "DeleteEphemeral has no parameters and no secrets to work with.",
		prepare: func(t *T) task {
			made := t.ephemeral()
			v, err := made.do(t.Context())
			t.must("CreateEphemeral", err)
			t.opened(v.(*backends.Volume), backends.Owner{})
			return task{do: func(ctx context.Context) (any, error) { return nil, made.undo(ctx) }}
		},
	},
}

// provisioning is the making of a volume.
func (t *T) provisioning(req backends.CreateVolumeRequest, from origin) task {
	id := ""
	if t.c.VolumeIDer != nil {
		var err error
		id, err = t.c.VolumeIDer.VolumeID(twin(req))
		t.must("VolumeID", err)
	}
	return task{
		do: func(ctx context.Context) (any, error) {
			v, err := t.provision(ctx, req, from)
			if err != nil {
				return nil, err
			}
			return v, nil
		},
		done: func(result any) { t.fits(result.(*backends.Volume), req, from) },
		undo: func(ctx context.Context) error {
			if id != "" {
				return t.remove(ctx, id)
			}
			v, err := t.find(ctx, req)
			if v == nil || err != nil {
				return err
			}
			return t.remove(ctx, v.ID)
		},
		gone: func() { t.gone(req, id) },
	}
}
