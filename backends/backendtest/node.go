package backendtest

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/csikit/csikit/backends"
)

// usable makes a volume that this node may open.
func (t *T) usable(name string) *backends.Volume {
	t.Helper()
	v := t.create(name)
	if t.c.Attacher != nil {
		t.want(t.b.NodeID != "", "Backend.NodeID")
		_, err := t.attach(t.Context(), t.attachRequest(v, t.b.NodeID))
		t.must("AttachVolume", err)
	}
	return v
}

// openRequest is what csikit's engine asks for: the State of an earlier opening
// comes with it.
func (t *T) openRequest(ctx context.Context, v *backends.Volume) (backends.OpenVolumeRequest, error) {
	req := backends.OpenVolumeRequest{ID: v.ID, Capability: t.capability(), Context: v.Context, Secrets: t.cfg.secrets()}
	if src := t.open[v.ID]; src != nil {
		req.State = src.State
	}
	if t.c.Attacher == nil || t.b.Controller == nil {
		return req, nil
	}
	var err error
	req.PublishContext, err = t.attach(ctx, t.attachRequest(v, t.b.NodeID))
	return req, err
}

// tryOpen opens a volume, and remembers that it may be open even if the call
// fails.
func (t *T) tryOpen(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	if t.open[req.ID] == nil {
		t.open[req.ID] = &backends.Source{}
	}
	src, err := t.b.Node.OpenVolume(ctx, req)
	if err == nil && src == nil {
		err = errors.New("no source and no error")
	}
	if t.watch("OpenVolume", err) != nil {
		return nil, err
	}
	t.open[req.ID] = src
	return src, nil
}

func (t *T) openVolume(v *backends.Volume) *backends.Source {
	t.Helper()
	req, err := t.openRequest(t.Context(), v)
	t.must("AttachVolume", err)
	src, err := t.tryOpen(t.Context(), req)
	t.must("OpenVolume", err)
	t.validSource(src)
	return src
}

func (t *T) closeVolume(ctx context.Context, id string, state []byte) error {
	err := t.b.Node.CloseVolume(ctx, backends.CloseVolumeRequest{ID: id, State: state})
	if err == nil {
		delete(t.open, id)
	}
	return t.watch("CloseVolume", err)
}

// validSource looks at what OpenVolume gave.
func (t *T) validSource(src *backends.Source) {
	t.Helper()
	n := 0
	for _, given := range []bool{src.Device != nil, src.Mount != nil, src.Dir != "", src.FUSE != nil} {
		if given {
			n++
		}
	}
	if n != 1 {
		t.Errorf("a source with %d of Device, Mount, Dir and FUSE", n)
	}
	if src.Dir != "" && !filepath.IsAbs(src.Dir) {
		t.Errorf("directory %q is not absolute", src.Dir)
	}
	if d := src.Device; d != nil {
		if !t.b.Traits.Devices {
			t.Error("a device, and Traits.Devices is false")
		}
		id := d.Identity
		if id.Serial+id.WWID+id.DMUUID+id.Unverified == "" && id.BackingIno == 0 && id.Check == nil {
			t.Errorf("device %s: nothing says how to know it", d.Path)
		}
	}
	t.hides("Source.State", string(src.State))
	if m := src.Mount; m != nil {
		for _, o := range m.Options {
			t.hides("Mount.Options", o)
		}
		t.hides("Mount.Source", m.Source)
	}
}

func (t *T) opening() task {
	v := t.usable(t.name())
	return task{
		do: func(ctx context.Context) (any, error) {
			req, err := t.openRequest(ctx, v)
			if err != nil {
				return nil, err
			}
			src, err := t.tryOpen(ctx, req)
			if err != nil {
				return nil, err
			}
			return src, nil
		},
		done: func(result any) { t.validSource(result.(*backends.Source)) },
		undo: func(ctx context.Context) error {
			var state []byte
			if src := t.open[v.ID]; src != nil {
				state = src.State
			}
			return t.closeVolume(ctx, v.ID, state)
		},
		gone: func() { t.deletable(v) },
	}
}

// deletable fails the check unless the closed volume can be deleted.
func (t *T) deletable(v *backends.Volume) {
	t.Helper()
	if t.c.Attacher != nil {
		t.must("DetachVolume", t.detach(t.Context(), v.ID, t.b.NodeID))
	}
	t.must("DeleteVolume of a closed volume", t.remove(t.Context(), v.ID))
}

func (t *T) nodeExpanding() task {
	v := t.usable(t.name())
	t.openVolume(v)
	size := roundUp(2*max(v.Capacity, 1), t.b.Traits.SizeStep)
	size, err := t.grow(t.Context(), v.ID, size)
	t.must("ExpandVolume", err)
	req := backends.NodeExpandVolumeRequest{ID: v.ID, Range: backends.CapacityRange{Required: size}, State: t.open[v.ID].State, Secrets: t.cfg.secrets()}
	return task{
		do: func(ctx context.Context) (any, error) {
			return nil, t.watch("NodeExpandVolume", t.n.NodeExpander.NodeExpandVolume(ctx, req))
		},
		done: func(any) {
			if d := t.openVolume(v).Device; d != nil && d.Identity.Size > 0 && d.Identity.Size < size {
				t.Errorf("the device is said to have %d bytes, the volume has %d", d.Identity.Size, size)
			}
		},
	}
}

// formatting is of a mounted volume: a raw one is nobody's to format.
func (t *T) formatting() task {
	if !t.b.Traits.Filesystem {
		t.Skip("volumes are not mounted")
	}
	t.mount = true
	v := t.usable(t.name())
	t.openVolume(v)
	fsType := t.b.Traits.FSTypes[0]
	record := func(ctx context.Context, s backends.FormatState) error {
		return t.watch("RecordFormat", t.n.FormatRecorder.RecordFormat(ctx, backends.RecordFormatRequest{ID: v.ID, Format: s, FSType: fsType, State: t.open[v.ID].State}))
	}
	t.must("RecordFormat", record(t.Context(), backends.FormatStarted))
	if d := t.openVolume(v).Device; d != nil && d.Format != backends.FormatStarted {
		t.Errorf("format is %v, recorded was %v", d.Format, backends.FormatStarted)
	}
	return task{
		do: func(ctx context.Context) (any, error) { return nil, record(ctx, backends.FormatDone) },
		done: func(any) {
			if d := t.openVolume(v).Device; d == nil || d.Format != backends.FormatDone || d.FSType != fsType {
				t.Errorf("device %+v, recorded was that it is %s", d, fsType)
			}
		},
	}
}

var nodeChecks = []check{
	{
		"node/unknown volume", "An unknown volume is VolumeNotFound(req.ID).", "Node",
		func(t *T) {
			for _, id := range hostileIDs("volume-unknown-to-any-backend") {
				_, err := t.b.Node.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: id, Capability: t.capability(), Secrets: t.cfg.secrets()})
				t.noVolume("OpenVolume", err, id)
				t.must("CloseVolume of a volume that is none", t.b.Node.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: id}))
			}
		},
	},
	{
		"node/close by ID and State alone", "It must work from req.ID and req.State alone", "Controller Node",
		func(t *T) {
			v := t.usable(t.name())
			state := t.openVolume(v).State
			if t.cfg.Reopen != nil {
				t.reopen()
			}
			t.must("CloseVolume", t.closeVolume(t.Context(), v.ID, state))
			t.must("CloseVolume, closed already", t.closeVolume(t.Context(), v.ID, state))
			t.must("CloseVolume without State", t.closeVolume(t.Context(), v.ID, nil))
			t.deletable(v)
			t.must("CloseVolume of a volume that is gone", t.closeVolume(t.Context(), v.ID, state))
		},
	},
	{
		"node/delete while open", "A volume that is in use, or that its snapshots depend on, is ErrInUse and left untouched.", "Controller Node",
		func(t *T) {
			v := t.usable(t.name())
			src := t.openVolume(v)
			if err := t.remove(t.Context(), v.ID); err == nil {
				t.Skip("the backend does not know what is open: csidriver and its engine do")
			} else {
				t.wantKind("DeleteVolume of an open volume", err, backends.ErrInUse)
			}
			t.same("the volume afterwards", t.lookup(v.ID), v)
			t.same("its source afterwards", t.openVolume(v), src)
		},
	},
	{
		"node/recover", "Whatever else the backend finds of its own on this node (a loop device, an active LV) and nobody uses, it closes.", "Controller Node NodeRecoverer",
		func(t *T) {
			used, unused := t.usable(t.name()), t.usable(t.name())
			src := t.openVolume(used)
			t.openVolume(unused)
			delete(t.open, unused.ID) // the record is lost
			if t.cfg.Reopen != nil {
				t.reopen()
			} else {
				t.recover()
			}
			t.deletable(unused)
			t.same("the source of a volume that is in use", t.openVolume(used), src)
		},
	},
	{
		"node/topology", "The answer stays the same for the life of the node.", "Node TopologyReporter",
		func(t *T) {
			here, err := t.n.TopologyReporter.NodeTopology(t.Context())
			t.must("NodeTopology", err)
			for k, v := range here {
				if !slices.Contains(t.b.Traits.TopologyKeys, k) || v == "" {
					t.Errorf("segment %s=%q: Traits.TopologyKeys is %q", k, v, t.b.Traits.TopologyKeys)
				}
			}
			if t.cfg.Reopen != nil {
				t.reopen()
			}
			again, err := t.n.TopologyReporter.NodeTopology(t.Context())
			t.must("NodeTopology", err)
			t.same("NodeTopology", again, here)
		},
	},
	{
		"node/attach limit", "AttachLimiter says how many volumes this node can hold; 0: the CO decides.", "Node AttachLimiter",
		func(t *T) {
			n, err := t.n.AttachLimiter.MaxVolumes(t.Context())
			t.must("MaxVolumes", err)
			if n < 0 {
				t.Errorf("%d volumes", n)
			}
		},
	},
	{
		"node/stats", "VolumeStats in bytes and inodes.", "Controller Node StatsReporter",
		func(t *T) {
			v := t.usable(t.name())
			src := t.openVolume(v)
			st, err := t.n.StatsReporter.VolumeStats(t.Context(), backends.VolumeStatsRequest{ID: v.ID, Path: src.Dir, State: src.State})
			t.must("VolumeStats", err)
			for _, n := range []int64{st.Total, st.Used, st.Available, st.Inodes, st.InodesUsed, st.InodesFree} {
				if n < 0 {
					t.Errorf("stats %+v", *st)
				}
			}
			if st.Total == 0 || st.Used > st.Total || st.Available > st.Total {
				t.Errorf("stats %+v", *st)
			}
		},
	},
	{
		remoteFree, "UnmountRemote takes everything off a path.", "Node RemoteMounter",
		func(t *T) {
			// What is mounted where only the engine's own tests know.
			t.must("UnmountRemote of a path that is free", t.n.RemoteMounter.UnmountRemote(t.Context(), backends.UnmountRemoteRequest{Path: t.TempDir()}))
		},
	},
	{
		reopenFUSE, "FUSEReopener says once more how a volume is served", "Controller Node FUSEReopener",
		func(t *T) {
			v := t.usable(t.name())
			src := t.openVolume(v)
			if t.cfg.Reopen != nil {
				t.reopen()
			}
			again, err := t.n.FUSEReopener.ReopenFUSE(t.Context(), backends.ReopenFUSERequest{ID: v.ID, State: src.State, Secrets: t.cfg.secrets()})
			t.must("ReopenFUSE", err)
			if src.FUSE == nil || again == nil {
				t.Fatalf("opened as %+v, reopened as %+v: want FUSE both times", src, again)
			}
			t.same("the server of a volume that is reopened", withoutSecrets(again), withoutSecrets(src.FUSE))
		},
	},
}

const (
	reopenFUSE = "node/reopen FUSE"
	remoteFree = "node/remote"
)

// withoutSecrets is what can be compared of a FUSE server.
func withoutSecrets(f *backends.FUSE) backends.FUSE {
	c := *f
	c.Env, c.Files = backends.Secrets{}, nil
	return c
}
