package suite

import (
	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// copyChecks: H-16, volumes from snapshots and from volumes; and snapshots.
func copyChecks() []Check {
	const snap, clone = "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT", "CREATE_DELETE_VOLUME CLONE_VOLUME"
	return []Check{
		{ID: "H-16/restore", Title: "A volume is made from a snapshot, has its source, and is no smaller", Clauses: "CV-20 CV-45 CV-26", Needs: snap, Run: func(t *T) {
			v := t.NewVolume()
			copied(t, "CV-20", fromSnapshot(readySnapshot(t, v).GetSnapshotId()), v)
		}},
		{ID: "H-16/clone", Title: "A volume is made from a volume, and has its source", Clauses: "CV-21 CV-45", Needs: clone, Run: func(t *T) {
			v := t.NewVolume()
			copied(t, "CV-21", fromVolume(v.VolumeId), v)
		}},
		{ID: "H-16/restore/smaller", Title: "A volume smaller than its snapshot is OUT_OF_RANGE", Clauses: "CV-26 CV-12", Needs: snap, Run: smallerThanSnapshot},
		{ID: "H-16/restore/bigger", Title: "A volume bigger than its snapshot has that size, or is OUT_OF_RANGE", Clauses: "CV-24 CV-08", Needs: snap, Run: func(t *T) {
			v := t.NewVolume()
			bigger(t, v, fromSnapshot(readySnapshot(t, v).GetSnapshotId()))
		}},
		{ID: "H-16/clone/bigger", Title: "A clone bigger than its volume has that size, or is OUT_OF_RANGE", Clauses: "CV-24 CV-08", Needs: clone, Run: func(t *T) {
			v := t.NewVolume()
			bigger(t, v, fromVolume(v.VolumeId))
		}},
		{ID: "H-16/no-clones", Title: "CreateVolume from a volume, without CLONE_VOLUME, is INVALID_ARGUMENT", Clauses: "CV-22", Needs: "CREATE_DELETE_VOLUME", Run: func(t *T) {
			if t.Has("CLONE_VOLUME") {
				t.NotApplicable("CLONE_VOLUME is advertised")
			}
			req := t.CreateRequest()
			req.VolumeContentSource = fromVolume(t.NewVolume().VolumeId)
			t.Refused("CV-22", "from a volume", req, codes.InvalidArgument)
		}},
		{ID: "H-16/no-snapshots", Title: "CreateVolume from a snapshot, without CREATE_DELETE_SNAPSHOT, is INVALID_ARGUMENT", Clauses: "CV-22", Needs: "CREATE_DELETE_VOLUME", Run: func(t *T) {
			if t.Has("CREATE_DELETE_SNAPSHOT") || t.Has("group") {
				t.NotApplicable("the driver has snapshots")
			}
			t.Mode()
			req := t.CreateRequest()
			req.VolumeContentSource = fromSnapshot(noSnapshot)
			t.Refused("CV-22", "from a snapshot", req, codes.InvalidArgument)
		}},
		{ID: "H-16/source-deleted", Title: "A snapshot outlives its volume, or the volume stays: FAILED_PRECONDITION", Clauses: "DV-04 DV-05 DV-06", Needs: snap, Run: sourceDeleted},
		{ID: "H-16/retry-after-delete", Title: "CreateVolume, repeated after its snapshot is gone, finds its volume", Clauses: "CV-02 DS-05", Needs: snap, Run: retryAfterDelete},
		{ID: "H-16/clone-outlives", Title: "A clone outlives its volume", Clauses: "CV-21 DV-07", Needs: clone, Run: cloneOutlives},
		{ID: "H-16/snapshot/ready", Title: "A snapshot gets ready to use, and stays what it was", Clauses: "CS-05 CS-04 CS-02 CS-19 LS-09", Needs: snap, Run: func(t *T) { readySnapshot(t, t.NewVolume()) }},
		{ID: "H-16/snapshot/in-use", Title: "DeleteSnapshot beside a volume made of it is OK, or FAILED_PRECONDITION", Clauses: "DS-05", Needs: snap, Run: snapshotInUse},
		{ID: "H-16/snapshot/published", Title: "A snapshot is made of a volume in use", Clauses: "CS-01", Needs: snap + " node", Run: func(t *T) {
			v := t.NewVolume().ToNode()
			v.PublishAt()
			_, err := check.Try[*csi.CreateSnapshotResponse](t, t.SnapshotRequest(v.VolumeId))
			if err != nil && codeOf(err) != codes.FailedPrecondition {
				t.Failf("CS-01", "CreateSnapshot of a published volume: got %s, want OK (or FAILED_PRECONDITION)", check.Describe(err))
			}
		}},
		{ID: "H-16/snapshot/topology", Title: "CreateSnapshot with accessibility_requirements, without the capability, is refused", Clauses: "CS-17 CS-18", Needs: snap, Run: snapshotTopology},
	}
}

func copied(t *T, clause string, source *csi.VolumeContentSource, of *check.Volume) {
	req := t.CreateRequest()
	req.VolumeContentSource = source
	req.CapacityRange = capRange(max(of.CapacityBytes, t.Config().Size), 0)
	v := check.OK[*csi.CreateVolumeResponse](t, clause, req).GetVolume()
	if !proto.Equal(v.GetContentSource(), source) {
		t.Failf("CV-45", "content_source of the volume is %s, want %s", t.Text(v.GetContentSource()), t.Text(source))
	}
	if v.GetCapacityBytes() != 0 && v.GetCapacityBytes() < of.CapacityBytes {
		t.Failf("CV-26 CV-08", "the copy has %d bytes, and its source %d", v.GetCapacityBytes(), of.CapacityBytes)
	}
	if v.GetVolumeId() == of.VolumeId {
		t.Failf("CV-40", "the copy has the id of its source")
	}
	again := check.OK[*csi.CreateVolumeResponse](t, "CV-02 "+clause, req).GetVolume()
	if again.GetVolumeId() != v.GetVolumeId() || !proto.Equal(again.GetContentSource(), source) {
		t.Failf("CV-02 CV-45", "CreateVolume of the copy, again, says %s, and before %s", t.Text(again), t.Text(v))
	}
}

func smallerThanSnapshot(t *T) {
	v := t.NewVolume()
	size := sizeOf(t, v)
	s := readySnapshot(t, v)
	if s.GetSizeBytes() == 0 {
		t.NotApplicable("the driver does not say what a snapshot needs")
	}
	req := t.CreateRequest()
	req.VolumeContentSource = fromSnapshot(s.GetSnapshotId())
	req.CapacityRange = capRange(1, min(size, s.GetSizeBytes())/2)
	t.Refused("CV-26 CV-12", "of half its snapshot's size", req, codes.OutOfRange, codes.InvalidArgument)
	req = t.CreateRequest()
	req.VolumeContentSource = fromSnapshot(s.GetSnapshotId())
	req.CapacityRange = nil
	if got := check.OK[*csi.CreateVolumeResponse](t, "CV-20", req).GetVolume().GetCapacityBytes(); got != 0 && got < s.GetSizeBytes() {
		t.Failf("CV-26", "a volume of no given size has %d bytes, and its snapshot %d", got, s.GetSizeBytes())
	}
}

func bigger(t *T, of *check.Volume, source *csi.VolumeContentSource) {
	want := max(2*sizeOf(t, of), t.Config().ExpandSize)
	req := t.CreateRequest()
	req.VolumeContentSource = source
	req.CapacityRange = capRange(want, 0)
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	switch {
	case codeOf(err) == codes.OutOfRange || codeOf(err) == codes.ResourceExhausted:
	case err != nil:
		t.Failf("CV-24", "CreateVolume of a copy of %d bytes: got %s, want OK or OUT_OF_RANGE", want, check.Describe(err))
	case resp.GetVolume().GetCapacityBytes() != 0 && resp.GetVolume().GetCapacityBytes() < want:
		t.Failf("CV-24 CV-08", "CreateVolume of a copy of %d bytes: it has %d", want, resp.GetVolume().GetCapacityBytes())
	}
}

func sourceDeleted(t *T) {
	v := t.NewVolume()
	s := readySnapshot(t, v)
	_, err := t.Try(v.DeleteRequest())
	switch codeOf(err) {
	case codes.OK:
		req := t.CreateRequest()
		req.VolumeContentSource = fromSnapshot(s.GetSnapshotId())
		req.CapacityRange = capRange(max(v.CapacityBytes, t.Config().Size), 0)
		check.OK[*csi.CreateVolumeResponse](t, "DV-05", req)
		if t.Has("LIST_SNAPSHOTS") {
			got := check.OK[*csi.ListSnapshotsResponse](t, "DV-05", &csi.ListSnapshotsRequest{SnapshotId: s.GetSnapshotId(), Secrets: t.Config().Secrets})
			if len(got.GetEntries()) != 1 {
				t.Failf("DV-05", "the volume is deleted, and ListSnapshots does not have its snapshot any more")
			}
		}
	case codes.FailedPrecondition:
		if got := check.OK[*csi.ValidateVolumeCapabilitiesResponse](t, "DV-06", validateRequest(v)); got.GetConfirmed() == nil {
			t.Failf("DV-06", "DeleteVolume is refused, and the volume is not what it was")
		}
	default:
		t.Failf("DV-06", "DeleteVolume of a volume with a snapshot: got %s, want OK or FAILED_PRECONDITION", check.Describe(err))
	}
}

func retryAfterDelete(t *T) {
	v := t.NewVolume()
	s := readySnapshot(t, v)
	req := t.CreateRequest()
	req.VolumeContentSource = fromSnapshot(s.GetSnapshotId())
	req.CapacityRange = capRange(max(v.CapacityBytes, t.Config().Size), 0)
	id := check.OK[*csi.CreateVolumeResponse](t, "CV-20", req).GetVolume().GetVolumeId()
	if _, err := t.Try(&csi.DeleteSnapshotRequest{SnapshotId: s.GetSnapshotId(), Secrets: t.Config().Secrets}); err != nil {
		if codeOf(err) != codes.FailedPrecondition {
			t.Failf("DS-05", "DeleteSnapshot beside a volume made of it: got %s, want OK or FAILED_PRECONDITION", check.Describe(err))
		}
		return
	}
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	if err != nil || resp.GetVolume().GetVolumeId() != id {
		t.Failf("CV-02", "CreateVolume, repeated after its snapshot was deleted: got %s, want the volume that is there", check.Describe(err))
	}
}

func cloneOutlives(t *T) {
	v := t.NewVolume()
	req := t.CreateRequest()
	req.VolumeContentSource = fromVolume(v.VolumeId)
	req.CapacityRange = capRange(max(v.CapacityBytes, t.Config().Size), 0)
	c := check.OK[*csi.CreateVolumeResponse](t, "CV-21", req).GetVolume()
	if _, err := t.Try(v.DeleteRequest()); err != nil {
		if codeOf(err) != codes.FailedPrecondition {
			t.Failf("DV-07", "DeleteVolume of a volume with a clone: got %s, want OK or FAILED_PRECONDITION", check.Describe(err))
		}
		return
	}
	clone := &check.Volume{Volume: c, T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
	check.OK[*csi.ValidateVolumeCapabilitiesResponse](t, "CV-21", validateRequest(clone))
}

func snapshotInUse(t *T) {
	v := t.NewVolume()
	s := readySnapshot(t, v)
	req := t.CreateRequest()
	req.VolumeContentSource = fromSnapshot(s.GetSnapshotId())
	req.CapacityRange = capRange(max(v.CapacityBytes, t.Config().Size), 0)
	check.OK[*csi.CreateVolumeResponse](t, "CV-20", req)
	t.Refused("DS-05", "beside a volume made of it", &csi.DeleteSnapshotRequest{SnapshotId: s.GetSnapshotId(), Secrets: t.Config().Secrets}, codes.OK, codes.FailedPrecondition)
}

func snapshotTopology(t *T) {
	place := t.Node.GetAccessibleTopology().GetSegments()
	if len(place) == 0 {
		place = map[string]string{"csikit.example.com/zone": "a"}
	}
	req := t.SnapshotRequest(t.NewVolume().VolumeId)
	if !t.Has("plugin:SNAPSHOT_ACCESSIBILITY_CONSTRAINTS") {
		req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: place}}}
		if _, err := t.Try(req); codeOf(err) != codes.InvalidArgument { // a driver of a spec before 1.13 cannot know the field
			t.Warnf("CS-18", "CreateSnapshot with accessibility_requirements, and SNAPSHOT_ACCESSIBILITY_CONSTRAINTS is not advertised: got %s, want INVALID_ARGUMENT", check.Describe(err))
		}
		return
	}
	req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{elsewhere(place)}}
	t.Refused("CS-17 CS-12", "for a place that nobody has", req, codes.ResourceExhausted, codes.InvalidArgument)
}
