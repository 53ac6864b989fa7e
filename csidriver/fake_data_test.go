package csidriver

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
)

// data is memory with data services. Its hooks are memory's.
type data struct {
	*memory
	snapshots map[string]*backends.Snapshot
	groups    map[string]*backends.GroupSnapshot
	cut       atomic.Int64 // how often a snapshot, or a group, was made

	unready    bool // snapshots are still being copied
	answerSnap func(*backends.Snapshot) *backends.Snapshot
	answerAll  func(*backends.GroupSnapshot) *backends.GroupSnapshot
	changed    func(context.Context, backends.ChangedBlocksRequest) (backends.BlockMap, error)
	modified   []backends.ModifyVolumeRequest
	restored   []backends.CreateVolumeRequest
}

func newData(m *memory) *data {
	return &data{memory: m, snapshots: make(map[string]*backends.Snapshot), groups: make(map[string]*backends.GroupSnapshot)}
}

// startData starts a driver with data services.
func startData(t *testing.T, change func(*setup, *data)) (*rig, *data) {
	t.Helper()
	var d *data
	r := startRig(t, func(s *setup) {
		d = newData(s.backend)
		s.cfg.Controller = d
		if change != nil {
			change(s, d)
		}
	})
	return r, d
}

// addVolumes makes volumes of one GiB.
func addVolumes(t *testing.T, r *rig, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := r.CreateVolume(t.Context(), createReq(name))
		wantCode(t, err, codes.OK)
	}
}

func snapshotReq(name, volume string) *csi.CreateSnapshotRequest {
	return &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume}
}

func (d *data) make(ctx context.Context, method string, source backends.ContentSource, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	d.made.Add(1)
	if err := d.before(ctx, method); err != nil {
		return nil, err
	}
	v := &backends.Volume{
		ID: memoryID(req.Name), Name: req.Name, Capacity: req.Size, Fingerprint: req.Fingerprint, Source: source,
		Context: map[string]string{"pool": "a"}, Mutable: req.Mutable,
	}
	if d.place != nil {
		v.Topology = []backends.Segments{d.place}
	}
	d.mu.Lock()
	d.volumes[v.ID] = v
	d.restored = append(d.restored, req)
	d.mu.Unlock()
	if d.answer != nil {
		return d.answer(v), nil
	}
	return v, nil
}

func (d *data) CreateVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return d.make(ctx, "CreateVolume", backends.ContentSource{}, req)
}

func (d *data) RestoreSnapshot(ctx context.Context, snap backends.Snapshot, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return d.make(ctx, "RestoreSnapshot", backends.ContentSource{SnapshotID: snap.ID}, req)
}

func (d *data) CloneVolume(ctx context.Context, source backends.Volume, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return d.make(ctx, "CloneVolume", backends.ContentSource{VolumeID: source.ID}, req)
}

func (d *data) Snapshot(ctx context.Context, req backends.SnapshotRequest) (*backends.Snapshot, error) {
	if err := d.before(ctx, "Snapshot"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.snapshots[req.ID]; ok {
		return s, nil
	}
	return nil, backends.SnapshotNotFound(req.ID)
}

func (d *data) SnapshotID(req backends.CreateSnapshotRequest) (string, error) {
	return "s" + memoryID(req.Name), nil
}

func (d *data) FindSnapshot(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	if err := d.before(ctx, "FindSnapshot"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.snapshots["s"+memoryID(req.Name)]; ok {
		return s, nil
	}
	return nil, backends.SnapshotNotFound(req.Name)
}

// newSnapshot needs the lock.
func (d *data) newSnapshot(id, volume, fingerprint string) *backends.Snapshot {
	s := &backends.Snapshot{
		ID: id, VolumeID: volume, Created: testStart.Add(time.Duration(d.cut.Load()) * time.Second), Ready: !d.unready, Fingerprint: fingerprint,
	}
	if v := d.volumes[volume]; v != nil {
		s.Size = v.Capacity
	}
	return s
}

func (d *data) CreateSnapshot(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	d.cut.Add(1)
	if err := d.before(ctx, "CreateSnapshot"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.newSnapshot("s"+memoryID(req.Name), req.VolumeID, req.Fingerprint)
	if d.place != nil {
		s.Topology = []backends.Segments{d.place}
	}
	d.snapshots[s.ID] = s
	if d.answerSnap != nil {
		return d.answerSnap(s), nil
	}
	return s, nil
}

func (d *data) DeleteSnapshot(ctx context.Context, req backends.DeleteSnapshotRequest) error {
	if err := d.before(ctx, "DeleteSnapshot"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.snapshots[req.ID] == nil {
		return backends.SnapshotNotFound(req.ID)
	}
	delete(d.snapshots, req.ID)
	return nil
}

func (d *data) ListSnapshots(ctx context.Context, req backends.ListSnapshotsRequest) ([]*backends.Snapshot, string, error) {
	if err := d.before(ctx, "ListSnapshots"); err != nil {
		return nil, "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.Page.Token != "" && d.snapshots[req.Page.Token] == nil {
		return nil, "", backends.ErrStaleToken
	}
	all := slices.DeleteFunc(slices.Collect(maps.Values(d.snapshots)), func(s *backends.Snapshot) bool { return s.ID <= req.Page.Token })
	slices.SortFunc(all, func(a, b *backends.Snapshot) int { return strings.Compare(a.ID, b.ID) })
	if len(all) <= req.Page.Limit {
		return all, "", nil
	}
	return all[:req.Page.Limit], all[req.Page.Limit-1].ID, nil
}

func (d *data) ModifyVolume(ctx context.Context, req backends.ModifyVolumeRequest) error {
	if err := d.before(ctx, "ModifyVolume"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.modified = append(d.modified, req)
	v := *d.volumes[req.ID]
	v.Mutable = maps.Clone(v.Mutable)
	if v.Mutable == nil {
		v.Mutable = make(map[string]string)
	}
	maps.Copy(v.Mutable, req.Mutable)
	d.volumes[req.ID] = &v
	return nil
}

func (d *data) GroupSnapshotID(req backends.CreateGroupSnapshotRequest) (string, error) {
	return "g" + memoryID(req.Name), nil
}

func (d *data) lookGroup(id, unknown string) (*backends.GroupSnapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g, ok := d.groups[id]; ok {
		c := *g
		c.Snapshots = slices.Clone(g.Snapshots)
		return &c, nil
	}
	return nil, backends.GroupNotFound(unknown)
}

func (d *data) GroupSnapshot(ctx context.Context, req backends.GroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	if err := d.before(ctx, "GroupSnapshot"); err != nil {
		return nil, err
	}
	return d.lookGroup(req.ID, req.ID)
}

func (d *data) FindGroupSnapshot(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	if err := d.before(ctx, "FindGroupSnapshot"); err != nil {
		return nil, err
	}
	return d.lookGroup("g"+memoryID(req.Name), req.Name)
}

func (d *data) CreateGroupSnapshot(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	d.cut.Add(1)
	if err := d.before(ctx, "CreateGroupSnapshot"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	g := &backends.GroupSnapshot{ID: "g" + memoryID(req.Name), Created: testStart, Fingerprint: req.Fingerprint}
	for _, volume := range req.VolumeIDs {
		s := d.newSnapshot("s"+memoryID(req.Name+"/"+volume), volume, "")
		s.GroupID = g.ID
		d.snapshots[s.ID] = s
		g.Snapshots = append(g.Snapshots, *s)
	}
	d.groups[g.ID] = g
	if d.answerAll != nil {
		return d.answerAll(g), nil
	}
	return g, nil
}

func (d *data) DeleteGroupSnapshot(ctx context.Context, req backends.DeleteGroupSnapshotRequest) error {
	if err := d.before(ctx, "DeleteGroupSnapshot"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.groups[req.ID] == nil {
		return backends.GroupNotFound(req.ID)
	}
	for _, id := range req.SnapshotIDs {
		delete(d.snapshots, id)
	}
	delete(d.groups, req.ID)
	return nil
}

// ChangedBlocks finds every second KiB of 16.
func (d *data) ChangedBlocks(ctx context.Context, req backends.ChangedBlocksRequest) (backends.BlockMap, error) {
	if err := d.before(ctx, "ChangedBlocks"); err != nil {
		return backends.BlockMap{}, err
	}
	if d.changed != nil {
		return d.changed(ctx, req)
	}
	return backends.BlockMap{VolumeSize: 16 << 10, Fixed: true, Blocks: func(yield func(backends.Block, error) bool) {
		for at := int64(0); at < 16<<10; at += 2 << 10 {
			if !yield(backends.Block{Offset: at, Size: 1 << 10}, nil) {
				return
			}
		}
	}}, nil
}

// hookOn makes one method of the backend do something before it works.
func hookOn(method string, do func(ctx context.Context) error) func(context.Context, string) error {
	return func(ctx context.Context, called string) error {
		if called != method {
			return nil
		}
		return do(ctx)
	}
}

// forget takes objects away behind the driver's back.
func (d *data) forget(ids ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		delete(d.volumes, id)
		delete(d.snapshots, id)
	}
}

// find gives a copy of a snapshot, to be changed and put back.
func (d *data) change(id string, change func(*backends.Snapshot)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := *cmp.Or(d.snapshots[id], new(backends.Snapshot))
	change(&s)
	d.snapshots[id] = &s
}

var (
	_ backends.Snapshotter         = (*data)(nil)
	_ backends.SnapshotIDer        = (*data)(nil)
	_ backends.SnapshotLister      = (*data)(nil)
	_ backends.Cloner              = (*data)(nil)
	_ backends.Modifier            = (*data)(nil)
	_ backends.GroupSnapshotter    = (*data)(nil)
	_ backends.GroupSnapshotIDer   = (*data)(nil)
	_ backends.ChangedBlockTracker = (*data)(nil)
)
