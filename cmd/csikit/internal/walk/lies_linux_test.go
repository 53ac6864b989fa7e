package walk

import (
	"context"
	"encoding/binary"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter"
)

// liar stands before a good driver and changes what is asked of it, or what it
// answers.
type liar struct {
	mu     sync.Mutex
	client csi.ControllerClient // of the driver itself
	dir    string               // of the walk
	ids    map[string]string    // for a lie to remember what it said
}

// lie gets a request by its method's name, and asks the driver by next.
type lie func(ctx context.Context, l *liar, method string, req any, next func() (any, error)) (any, error)

func (l *liar) unary(told lie) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		if told == nil {
			return h(ctx, req)
		}
		return told(ctx, l, path.Base(info.FullMethod), req, func() (any, error) { return h(ctx, req) })
	}
}

func (l *liar) remember(k, v string) { l.mu.Lock(); defer l.mu.Unlock(); l.ids[k] = v }
func (l *liar) recall(k string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ids[k]
}

// planted is a lie and what the walk is to say of it.
type planted struct {
	name    string
	subject string
	block   bool
	noSize  bool // none is asked for, and so copies are as big as their sources
	tell    lie
	stream  grpc.StreamServerInterceptor
	wrap    func(*loopfile.Backend) half
	want    string
	stays   bool // the driver says that it deleted something, and did not
}

// answer changes what a method answers.
func answer[T any](method string, change func(resp T)) lie {
	return func(_ context.Context, _ *liar, m string, _ any, next func() (any, error)) (any, error) {
		resp, err := next()
		if r, ok := resp.(T); ok && m == method && err == nil {
			change(r)
		}
		return resp, err
	}
}

// other makes a volume of other content, and says that it is of what was asked.
func other(change func(l *liar, req *csi.CreateVolumeRequest)) lie {
	return func(_ context.Context, l *liar, m string, req any, next func() (any, error)) (any, error) {
		r, ok := req.(*csi.CreateVolumeRequest)
		if !ok || r.GetVolumeContentSource() == nil {
			resp, err := next()
			if s, ok := resp.(*csi.CreateSnapshotResponse); ok && err == nil {
				l.remember(s.GetSnapshot().GetSnapshotId(), s.GetSnapshot().GetSourceVolumeId())
			}
			return resp, err
		}
		asked := r.GetVolumeContentSource()
		change(l, r)
		resp, err := next()
		if v, ok := resp.(*csi.CreateVolumeResponse); ok && err == nil {
			v.Volume.ContentSource = asked
		}
		return resp, err
	}
}

func volumeSource(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

func snapshotSource(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

// instead of doing it, a method answers OK.
func instead(method string, resp any) lie {
	return func(_ context.Context, _ *liar, m string, _ any, next func() (any, error)) (any, error) {
		if m == method {
			return resp, nil
		}
		return next()
	}
}

func blank(_ *liar, r *csi.CreateVolumeRequest) { r.VolumeContentSource = nil }

func present(l *liar, r *csi.CreateVolumeRequest) {
	r.VolumeContentSource = volumeSource(l.recall(r.GetVolumeContentSource().GetSnapshot().GetSnapshotId()))
}

// noMore answers that a volume made of another one is as big as was asked, and it
// is as big as that.
func noMore(ctx context.Context, l *liar, m string, req any, next func() (any, error)) (any, error) {
	r, ok := req.(*csi.CreateVolumeRequest)
	if !ok || r.GetVolumeContentSource() == nil {
		return next()
	}
	asked := r.GetCapacityRange().GetRequiredBytes()
	r.CapacityRange.RequiredBytes = 320 << 20
	resp, err := next()
	if v, ok := resp.(*csi.CreateVolumeResponse); ok && err == nil {
		v.Volume.CapacityBytes = asked
	}
	return resp, err
}

func noGrowth(_ context.Context, _ *liar, _ string, req any, next func() (any, error)) (any, error) {
	switch r := req.(type) {
	case *csi.ControllerExpandVolumeRequest:
		return &csi.ControllerExpandVolumeResponse{CapacityBytes: r.GetCapacityRange().GetRequiredBytes()}, nil
	case *csi.ControllerGetVolumeRequest:
		resp, err := next()
		if v, ok := resp.(*csi.ControllerGetVolumeResponse); ok && err == nil {
			v.Volume.CapacityBytes = 0
		}
		return resp, err
	}
	return next()
}

func writable(_ context.Context, _ *liar, _ string, req any, next func() (any, error)) (any, error) {
	if r, ok := req.(*csi.NodePublishVolumeRequest); ok {
		r.Readonly = false
	}
	return next()
}

// later cuts the second member of a group after the first.
func later(ctx context.Context, l *liar, _ string, req any, next func() (any, error)) (any, error) {
	if r, ok := req.(*csi.CreateVolumeRequest); ok {
		if s := l.recall(r.GetVolumeContentSource().GetSnapshot().GetSnapshotId()); s != "" {
			return other(func(_ *liar, r *csi.CreateVolumeRequest) { r.VolumeContentSource = snapshotSource(s) })(ctx, l, "", req, next)
		}
	}
	resp, err := next()
	g, ok := resp.(*csi.CreateVolumeGroupSnapshotResponse)
	if !ok || err != nil || l.recall("done") != "" {
		return resp, err
	}
	l.remember("done", "yes")
	if err := l.waitForWrites(ctx); err != nil {
		return nil, err
	}
	second := req.(*csi.CreateVolumeGroupSnapshotRequest).GetSourceVolumeIds()[1]
	late, err := l.client.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{SourceVolumeId: second, Name: "late"})
	for _, s := range g.GetGroupSnapshot().GetSnapshots() {
		if s.GetSourceVolumeId() == second {
			l.remember(s.GetSnapshotId(), late.GetSnapshot().GetSnapshotId())
		}
	}
	return resp, err
}

// waitForWrites waits until the walk has gone on writing numbers.
func (l *liar) waitForWrites(ctx context.Context) error {
	number := func() uint64 {
		b, _ := os.ReadFile(filepath.Join(l.dir, "vol-second", pod1, "number"))
		return binary.LittleEndian.Uint64(append(b, make([]byte, 8)...))
	}
	for was := number(); number() < was+3; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// shared answers a clone that is its source.
func shared(_ context.Context, l *liar, _ string, req any, next func() (any, error)) (any, error) {
	of := func(id *string) {
		if source := l.recall(*id); source != "" {
			*id = source
		}
	}
	switch r := req.(type) {
	case *csi.CreateVolumeRequest:
		resp, err := next()
		if v, ok := resp.(*csi.CreateVolumeResponse); ok && err == nil {
			l.remember(v.GetVolume().GetVolumeId(), r.GetVolumeContentSource().GetVolume().GetVolumeId())
		}
		return resp, err
	case *csi.NodeStageVolumeRequest:
		of(&r.VolumeId)
	case *csi.NodePublishVolumeRequest:
		of(&r.VolumeId)
	case *csi.NodeUnpublishVolumeRequest:
		of(&r.VolumeId)
	case *csi.NodeUnstageVolumeRequest:
		of(&r.VolumeId)
	}
	return next()
}

// keeping does not delete the volumes of pods.
type keeping struct{ *loopfile.Backend }

func (keeping) DeleteEphemeral(context.Context, backends.DeleteEphemeralRequest) error { return nil }

// forgetful leaves the first block out of each message of a stream.
type forgetful struct {
	grpc.ServerStream
	delta bool
	below int64 // what a delta forgets
}

func (f forgetful) SendMsg(m any) error {
	switch m := m.(type) {
	case *csi.GetMetadataAllocatedResponse:
		if !f.delta && len(m.GetBlockMetadata()) > 0 && m.GetBlockMetadata()[0].GetByteOffset() == 0 {
			m.BlockMetadata = m.GetBlockMetadata()[1:]
		}
	case *csi.GetMetadataDeltaResponse:
		if f.delta {
			m.BlockMetadata = slices.DeleteFunc(m.GetBlockMetadata(), func(b *csi.BlockMetadata) bool { return b.GetByteOffset() < f.below })
		}
	}
	return f.ServerStream.SendMsg(m)
}

func forget(delta bool, below int64) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return h(srv, forgetful{ss, delta, below})
	}
}

func lies() []planted {
	now := 0
	return []planted{
		{name: "restore makes an empty volume", subject: "snapshot", tell: other(blank), want: "no such file"},
		{name: "restore makes an empty device", subject: "snapshot", block: true, tell: other(blank), want: "restored's pod-1 reads other data than was written"},
		{name: "a snapshot is what the volume has now", subject: "snapshot", tell: other(present), want: "not what was written before the snapshot, but what was written after"},
		{name: "a clone is empty", subject: "clone", block: true, tell: other(blank), want: "clone's pod-1 reads other data"},
		{name: "a clone shares blocks with its source", subject: "clone", block: true, noSize: true, tell: shared, want: "not what the source had, but what was written to the source after"},
		{name: "a bigger clone is not bigger", subject: "clone", tell: noMore, want: "df says"},
		{name: "a bigger restored device is not bigger", subject: "snapshot", block: true, tell: noMore, want: "df says"},
		{name: "expand does not grow", subject: "life", tell: noGrowth, want: "after growth from"},
		{name: "expand does not grow a device", subject: "life", block: true, tell: noGrowth, want: "after growth from"},
		{name: "read-only is writable", subject: "life", tell: writable, want: "did not fail with"},
		{name: "a read-only device is writable", subject: "life", block: true, tell: writable, want: "did not fail with"},
		{name: "members of different moments", subject: "group", tell: later, want: "of different moments"},
		{name: "members are each other's", subject: "group", tell: answer("CreateVolumeGroupSnapshot", swap), want: "GetVolumeGroupSnapshot answers snapshot"},
		{name: "delta forgets", subject: "metadata", stream: forget(true, 64<<20), want: "GetMetadataDelta does not tell of"},
		{name: "delta forgets what became zero", subject: "metadata", stream: forget(true, 1<<20), want: "GetMetadataDelta does not tell of the 4096 bytes at 0"},
		{name: "allocated forgets", subject: "metadata", stream: forget(false, 0), want: "GetMetadataAllocated does not tell of"},
		{name: "an inline volume stays", subject: "inline", wrap: func(b *loopfile.Backend) half { return keeping{b} }, want: "is not new", stays: true},
		{name: "the list forgets", subject: "life", want: "ListVolumes has volume", tell: answer("ListVolumes", func(r *csi.ListVolumesResponse) { r.Entries = nil })},
		{name: "nothing is attached", subject: "life", want: `published to nodes []`, tell: answer("ListVolumes", func(r *csi.ListVolumesResponse) {
			for _, e := range r.GetEntries() {
				e.Status = nil
			}
		})},
		{name: "the list of snapshots forgets", subject: "snapshot", want: "ListSnapshots (all) has snapshot", tell: answer("ListSnapshots", func(r *csi.ListSnapshotsResponse) { r.Entries = nil })},
		{name: "a snapshot of no volume", subject: "snapshot", want: "it is one of", tell: answer("GetSnapshot", func(r *csi.GetSnapshotResponse) { r.Snapshot.SourceVolumeId = "x" })},
		{name: "a snapshot gets younger", subject: "snapshot", want: "says that the snapshot was taken at", tell: answer("CreateSnapshot", func(r *csi.CreateSnapshotResponse) {
			now++
			r.Snapshot.CreationTime = timestamppb.New(time.Unix(int64(now), 0))
		})},
		{name: "a restored volume does not say of what", subject: "snapshot", want: "content_source", tell: answer("CreateVolume", func(r *csi.CreateVolumeResponse) { r.Volume.ContentSource = nil })},
		{name: "stats of something small", subject: "life", want: "NodeGetVolumeStats answers 1 MiB in all", tell: answer("NodeGetVolumeStats", func(r *csi.NodeGetVolumeStatsResponse) {
			r.Usage = []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: 1 << 20}}
		})},
		{name: "health of another volume", subject: "life", want: "NodeGetVolumeHealth speaks of volume", tell: answer("NodeGetVolumeHealth", func(r *csi.NodeGetVolumeHealthResponse) { r.VolumeHealth.VolumeId = "x" })},
		{name: "a deleted volume stays", subject: "life", tell: instead("DeleteVolume", &csi.DeleteVolumeResponse{}), want: "ListVolumes has volume", stays: true},
		{name: "a deleted snapshot stays", subject: "snapshot", tell: instead("DeleteSnapshot", &csi.DeleteSnapshotResponse{}), want: "was deleted", stays: true},
		{name: "nothing is published", subject: "life", tell: instead("NodePublishVolume", &csi.NodePublishVolumeResponse{}), want: "there is no volume at"},
	}
}

func swap(r *csi.CreateVolumeGroupSnapshotResponse) {
	s := r.GetGroupSnapshot().GetSnapshots()
	s[0].SnapshotId, s[1].SnapshotId = s[1].SnapshotId, s[0].SnapshotId
}

// TestLies: each lie is found, and nothing is left that the driver did not lie
// about.
func TestLies(t *testing.T) {
	pool := disk(t, "xfs")
	for _, p := range lies() {
		t.Run(p.name, func(t *testing.T) {
			l := &liar{ids: map[string]string{}, dir: t.TempDir()}
			dir := filepath.Join(pool, strings.ReplaceAll(p.name, " ", "-"))
			backend := loopBackend(t, dir)
			var b half = backend
			if p.wrap != nil {
				b = p.wrap(backend)
			}
			o := csidriver.Options{UnaryInterceptors: []grpc.UnaryServerInterceptor{l.unary(p.tell)}}
			if p.stream != nil {
				o.StreamInterceptors = []grpc.StreamServerInterceptor{p.stream}
			}
			conn := serve(t, b, mounter.Options{}, o)
			l.client = csi.NewControllerClient(conn)
			out, err := walkDriver(t, conn, func(o *Options) {
				o.Block, o.FSType, o.Only, o.Dir = p.block, "xfs", []string{p.subject}, l.dir
				if p.noSize {
					o.Size = 0
				}
				o.Inline = map[string]string{"size": "320Mi"}
			})
			if err == nil || !strings.Contains(err.Error(), p.want) || !strings.Contains(out, "wrong: ") {
				t.Errorf("the walk says: %v\nwant %q", err, p.want)
			}
			if !p.stays && p.name != "members of different moments" {
				wantEmpty(t, dir)
			}
		})
	}
}
