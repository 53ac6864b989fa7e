package csidriver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

func TestSnapshotTwice(t *testing.T) {
	r, d := startData(t, nil)
	addVolumes(t, r, "v")
	first, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
	wantCode(t, err, codes.OK)
	s := first.GetSnapshot()
	if s.GetSnapshotId() != "sid-s" || s.GetSourceVolumeId() != "id-v" || s.GetSizeBytes() != gi || !s.GetReadyToUse() || !s.GetCreationTime().IsValid() || s.GetGroupSnapshotId() != "" {
		t.Errorf("made %v", s)
	}
	d.cut.Add(100) // a second cut would be at another time
	again := snapshotReq("s", "id-v")
	again.Secrets = map[string]string{"user": "another"}
	again.Parameters = map[string]string{"csi.storage.k8s.io/volumesnapshot/name": "another"}
	second, err := r.CreateSnapshot(t.Context(), again)
	wantCode(t, err, codes.OK)
	got, err := r.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: "sid-s"})
	wantCode(t, err, codes.OK)
	if !proto.Equal(first, second) || !proto.Equal(s, got.GetSnapshot()) || d.cut.Load() != 101 {
		t.Errorf("first %v, second %v, got %v, cut %d times", first, second, got, d.cut.Load()-100)
	}
	d.forget("id-v") // a snapshot may outlive its volume
	second, err = r.CreateSnapshot(t.Context(), again)
	wantCode(t, err, codes.OK)
	if !proto.Equal(first, second) {
		t.Errorf("without its volume %v", second)
	}
}

func TestSnapshotIsReadyLater(t *testing.T) {
	r, d := startData(t, func(_ *setup, d *data) { d.unready = true })
	addVolumes(t, r, "v")
	first, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
	wantCode(t, err, codes.OK)
	d.change("sid-s", func(s *backends.Snapshot) { s.Ready = true })
	second, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
	wantCode(t, err, codes.OK)
	if first.GetSnapshot().GetReadyToUse() || !second.GetSnapshot().GetReadyToUse() || !proto.Equal(first.GetSnapshot().GetCreationTime(), second.GetSnapshot().GetCreationTime()) {
		t.Errorf("first %v, second %v", first, second)
	}
}

func TestSnapshotOtherArguments(t *testing.T) {
	place := func(zone string) *csi.TopologyRequirement {
		return &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: map[string]string{"a.b/zone": zone}}}}
	}
	r, d := startData(t, func(s *setup, _ *data) {
		s.backend.place = backends.Segments{"a.b/zone": "one"}
		s.cfg.Traits.TopologyKeys, s.cfg.Traits.SnapshotTopology = []string{"a.b/zone"}, true
	})
	addVolumes(t, r, "v", "w")
	request := func() *csi.CreateSnapshotRequest {
		q := snapshotReq("s", "id-v")
		q.Parameters = map[string]string{"keep": "1d"}
		q.AccessibilityRequirements = place("one")
		return q
	}
	made, err := r.CreateSnapshot(t.Context(), request())
	wantCode(t, err, codes.OK)
	if list := made.GetSnapshot().GetAccessibleTopology(); len(list) != 1 || list[0].GetSegments()["a.b/zone"] != "one" {
		t.Errorf("usable from %v", list)
	}
	for field, change := range map[string]func(*csi.CreateSnapshotRequest){
		"source_volume_id":           func(q *csi.CreateSnapshotRequest) { q.SourceVolumeId = "id-w" },
		"source_volume_id: it is of": func(q *csi.CreateSnapshotRequest) { q.SourceVolumeId = "unknown" },
		"parameters":                 func(q *csi.CreateSnapshotRequest) { q.Parameters["keep"] = "2d" },
		"parameters: it":             func(q *csi.CreateSnapshotRequest) { q.Parameters = nil },
		"accessibility_requirements": func(q *csi.CreateSnapshotRequest) { q.AccessibilityRequirements = place("two") },
	} {
		q := request()
		change(q)
		_, err := r.CreateSnapshot(t.Context(), q)
		wantCode(t, err, codes.AlreadyExists, field, `snapshot "s"`)
	}
	if d.cut.Load() != 1 {
		t.Errorf("cut %d times", d.cut.Load())
	}
	q := request()
	q.AccessibilityRequirements.Requisite[0].Segments = nil
	_, err = r.CreateSnapshot(t.Context(), q)
	wantCode(t, err, codes.InvalidArgument, "empty topology")
	q.Name, q.AccessibilityRequirements = "elsewhere", place("two")
	_, err = r.CreateSnapshot(t.Context(), q)
	wantCode(t, err, codes.Unavailable, "none of the requisite")
}

func TestSnapshotRefuses(t *testing.T) {
	r, d := startData(t, nil)
	addVolumes(t, r, "v")
	for say, tc := range map[string]struct {
		code codes.Code
		req  *csi.CreateSnapshotRequest
	}{
		"name is required":             {codes.InvalidArgument, snapshotReq("", "id-v")},
		"source_volume_id is required": {codes.InvalidArgument, snapshotReq("s", "")},
		"name holds a control":         {codes.InvalidArgument, snapshotReq("s\x07", "id-v")},
		"name is 129 bytes":            {codes.InvalidArgument, snapshotReq(strings.Repeat("s", 129), "id-v")},
		"SNAPSHOT_ACCESSIBILITY":       {codes.InvalidArgument, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: "id-v", AccessibilityRequirements: &csi.TopologyRequirement{}}},
		`volume "nothing" not found`:   {codes.NotFound, snapshotReq("s", "nothing")},
	} {
		_, err := r.CreateSnapshot(t.Context(), tc.req)
		wantCode(t, err, tc.code, say)
	}
	if d.cut.Load() != 0 {
		t.Errorf("cut %d times", d.cut.Load())
	}
	for _, name := range []string{strings.Repeat("漢", 42), "a/b", "..", "a\tb"} {
		_, err := r.CreateSnapshot(t.Context(), snapshotReq(name, "id-v"))
		wantCode(t, err, codes.OK)
	}
}

func TestSnapshotBadAnswers(t *testing.T) {
	for say, answer := range map[string]func(*backends.Snapshot){
		"without an ID":           func(s *backends.Snapshot) { s.ID = "" },
		"more than 128 bytes":     func(s *backends.Snapshot) { s.ID = strings.Repeat("i", 129) },
		"or not UTF-8":            func(s *backends.Snapshot) { s.ID = "\xff" },
		"names no volume":         func(s *backends.Snapshot) { s.VolumeID = "" },
		"names a volume or a gro": func(s *backends.Snapshot) { s.GroupID = "\xff" },
		"asked for was one of":    func(s *backends.Snapshot) { s.VolumeID = "another" },
		"a size of -1":            func(s *backends.Snapshot) { s.Size = -1 },
		"was created at 0001":     func(s *backends.Snapshot) { s.Created = time.Time{} },
		"was created at":          func(s *backends.Snapshot) { s.Created = time.Unix(1<<40, 0) },
		"SnapshotTopology is fal": func(s *backends.Snapshot) { s.Topology = []backends.Segments{{"a": "b"}} },
	} {
		t.Run(say, func(t *testing.T) {
			r, _ := startData(t, func(_ *setup, d *data) {
				d.answerSnap = func(s *backends.Snapshot) *backends.Snapshot {
					c := *s
					answer(&c)
					return &c
				}
			})
			addVolumes(t, r, "v")
			_, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
			wantCode(t, err, codes.Unavailable, say)
		})
	}
	r, d := startData(t, func(_ *setup, d *data) { d.answerSnap = func(*backends.Snapshot) *backends.Snapshot { return nil } })
	addVolumes(t, r, "v")
	_, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
	wantCode(t, err, codes.Unavailable, "no snapshot and no error")
	d.change("sid-s", func(s *backends.Snapshot) { s.ID = "another" })
	_, err = r.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: "sid-s"})
	wantCode(t, err, codes.Internal, "it gave")
}

func TestSnapshotConcurrently(t *testing.T) {
	r, d := startData(t, nil)
	addVolumes(t, r, "v")
	var ids sync.Map
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			made, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
			if err != nil {
				t.Error(err)
			}
			ids.Store(made.GetSnapshot().GetSnapshotId(), true)
		})
	}
	all.Wait()
	if _, ok := ids.Load("sid-s"); !ok || d.cut.Load() != 1 {
		t.Errorf("cut %d times", d.cut.Load())
	}
}

// TestSnapshotDeadline: the work goes on when the caller has gone, and the retry
// gets its result.
func TestSnapshotDeadline(t *testing.T) {
	begun, gone := make(chan struct{}), make(chan struct{})
	tell := sync.OnceFunc(func() { close(begun) })
	r, d := startData(t, func(s *setup, _ *data) {
		s.backend.hook = hookOn("CreateSnapshot", func(ctx context.Context) error {
			tell()
			<-gone
			return ctx.Err() // not the caller's
		})
	})
	addVolumes(t, r, "v")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	_, err := r.CreateSnapshot(ctx, snapshotReq("s", "id-v"))
	wantCode(t, err, codes.Canceled)
	close(gone)
	made, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
	wantCode(t, err, codes.OK)
	if made.GetSnapshot().GetSnapshotId() != "sid-s" || d.cut.Load() != 1 {
		t.Errorf("made %v, cut %d times", made, d.cut.Load())
	}
}

func TestSnapshotPanic(t *testing.T) {
	var calm atomic.Bool
	r, _ := startData(t, func(s *setup, _ *data) {
		s.backend.hook = hookOn("CreateSnapshot", func(context.Context) error {
			if !calm.Load() {
				panic("canary-canary")
			}
			return nil
		})
	})
	addVolumes(t, r, "v")
	q := snapshotReq("s", "id-v")
	q.Secrets = map[string]string{"key": "canary-canary"}
	_, err := r.CreateSnapshot(t.Context(), q)
	wantCode(t, err, codes.Unavailable, "panic in CreateSnapshot s")
	if strings.Contains(r.log.String(), "canary-canary") {
		t.Errorf("log %s", r.log)
	}
	calm.Store(true)
	_, err = r.CreateSnapshot(t.Context(), q)
	wantCode(t, err, codes.OK)
}

// TestSnapshotErrors: what a backend says when it cuts, and what the CO hears.
func TestSnapshotErrors(t *testing.T) {
	for failure, want := range map[error]codes.Code{
		backends.ErrNoSpace:                codes.ResourceExhausted,
		backends.ErrPending:                codes.Aborted,
		backends.ErrFailed:                 codes.Internal,
		errors.New("exit status 5"):        codes.Unavailable,
		backends.VolumeNotFound("id-v"):    codes.Unavailable, // it was there a moment ago
		backends.SnapshotNotFound("sid-s"): codes.Unavailable,
		backends.ErrExists:                 codes.Unavailable, // and nobody has made it
	} {
		r, _ := startData(t, func(s *setup, _ *data) {
			s.backend.hook = hookOn("CreateSnapshot", func(context.Context) error { return fmt.Errorf("cut: %w", failure) })
		})
		addVolumes(t, r, "v")
		_, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
		wantCode(t, err, want)
	}
	for _, failure := range []error{backends.SnapshotNotFound("x"), backends.VolumeNotFound("s"), errors.Join(backends.SnapshotNotFound("s"), backends.ErrUnavailable)} {
		r, d := startData(t, func(s *setup, _ *data) {
			s.backend.hook = hookOn("FindSnapshot", func(context.Context) error { return failure })
		})
		addVolumes(t, r, "v")
		_, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
		wantCode(t, err, codes.Unavailable)
		if d.cut.Load() != 0 {
			t.Errorf("%v: cut", failure)
		}
	}
}

// TestSnapshotLooksAgain: another replica has cut it meanwhile.
func TestSnapshotLooksAgain(t *testing.T) {
	r, _ := startData(t, func(s *setup, d *data) {
		s.backend.hook = hookOn("CreateSnapshot", func(context.Context) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.snapshots["sid-s"] = d.newSnapshot("sid-s", "id-v", "")
			return backends.ErrExists
		})
	})
	addVolumes(t, r, "v")
	made, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
	wantCode(t, err, codes.OK)
	if made.GetSnapshot().GetSnapshotId() != "sid-s" {
		t.Errorf("made %v", made)
	}
}

func TestGetSnapshot(t *testing.T) {
	r, d := startData(t, func(_ *setup, d *data) { d.unready = true })
	addVolumes(t, r, "v")
	_, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
	wantCode(t, err, codes.OK)
	got, err := r.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: "sid-s"})
	wantCode(t, err, codes.OK)
	if got.GetSnapshot().GetReadyToUse() {
		t.Errorf("got %v", got)
	}
	_, err = r.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: "nothing"})
	wantCode(t, err, codes.NotFound, `"nothing"`)
	_, err = r.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{})
	wantCode(t, err, codes.InvalidArgument, "snapshot_id is required")
	d.hook = hookOn("Snapshot", func(context.Context) error { return backends.SnapshotNotFound("another") })
	_, err = r.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: "sid-s"})
	wantCode(t, err, codes.Internal)
}

// TestSnapshotsNoAlpha: neither the RPC nor the field of the alpha.
func TestSnapshotsNoAlpha(t *testing.T) {
	r, _ := startData(t, func(s *setup, _ *data) {
		s.opts.NoAlpha = true
		s.backend.place = backends.Segments{"a.b/zone": "one"}
		s.cfg.Traits.TopologyKeys, s.cfg.Traits.SnapshotTopology = []string{"a.b/zone"}, true
	})
	addVolumes(t, r, "v")
	made, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
	wantCode(t, err, codes.OK)
	list, err := r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{})
	wantCode(t, err, codes.OK)
	if made.GetSnapshot().GetAccessibleTopology() != nil || list.GetEntries()[0].GetSnapshot().GetAccessibleTopology() != nil {
		t.Errorf("made %v, list %v", made, list)
	}
	q := snapshotReq("s", "id-v")
	q.AccessibilityRequirements = &csi.TopologyRequirement{}
	_, err = r.CreateSnapshot(t.Context(), q)
	wantCode(t, err, codes.InvalidArgument)
	_, err = r.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: "sid-s"})
	wantCode(t, err, codes.Unimplemented)
	wantCode(t, allocated(t, r, &csi.GetMetadataAllocatedRequest{SnapshotId: "sid-s"}).err, codes.Unimplemented)
	caps, err := r.GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{})
	wantCode(t, err, codes.OK)
	for _, c := range caps.GetCapabilities() {
		switch c.GetService().GetType() {
		case csi.PluginCapability_Service_SNAPSHOT_METADATA_SERVICE, csi.PluginCapability_Service_SNAPSHOT_ACCESSIBILITY_CONSTRAINTS:
			t.Errorf("%v is advertised", c)
		}
	}
}

// TestDataWithoutIDs: a backend that cannot say IDs beforehand, and checks
// nothing, is served alike.
func TestDataWithoutIDs(t *testing.T) {
	r, d := startData(t, func(_ *setup, d *data) {
		d.without = func(c *backends.ControllerFeatures, _ *backends.NodeFeatures) {
			c.VolumeIDer, c.SnapshotIDer, c.GroupSnapshotIDer, c.VolumeChecker = nil, nil, nil, nil
		}
	})
	addVolumes(t, r, "v", "w")
	for range 2 {
		_, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
		wantCode(t, err, codes.OK)
		_, err = r.CreateVolume(t.Context(), restoreReq("new", snapshotSource("sid-s")))
		wantCode(t, err, codes.OK)
		_, err = r.ControllerModifyVolume(t.Context(), modifyReq("iops", "5"))
		wantCode(t, err, codes.OK)
		r.group(t)
	}
	for range 2 {
		_, err := r.DeleteSnapshot(t.Context(), deleteSnapshot("sid-s"))
		wantCode(t, err, codes.OK)
		_, err = r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g"))
		wantCode(t, err, codes.OK)
	}
	if d.cut.Load() != 2 || len(d.snapshots)+len(d.groups) != 0 {
		t.Errorf("cut %d times, left %v, %v", d.cut.Load(), d.snapshots, d.groups)
	}
}
