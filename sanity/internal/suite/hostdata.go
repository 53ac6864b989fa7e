package suite

import (
	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/sanity/internal/check"
)

func rawSize(t *T) {
	v, target := use(t)
	got, want := sizeAt(t, target), v.Request.GetCapacityRange().GetRequiredBytes()
	if got < want {
		t.Failf("CV-27 CV-08", "a raw volume of %d bytes was asked for, and the device has %d", want, got)
	}
	if v.CapacityBytes > 0 && got < v.CapacityBytes {
		t.Failf("CV-27", "the driver says that the volume has %d bytes, and the device has %d", v.CapacityBytes, got)
	}
}

func stats(t *T) {
	v, target := use(t)
	total := func(path string) int64 {
		r := check.OK[*csi.NodeGetVolumeStatsResponse](t, "NG-01 NG-06", &csi.NodeGetVolumeStatsRequest{VolumeId: v.VolumeId, VolumePath: path})
		for _, u := range r.GetUsage() {
			if u.GetUnit() == csi.VolumeUsage_BYTES {
				return u.GetTotal()
			}
		}
		return 0
	}
	got, want := total(target), sizeAt(t, target)
	if got > 0 && (got < want/2 || got > want*2) {
		t.Failf("NG-05", "NodeGetVolumeStats says %d bytes in total, and a pod sees %d", got, want)
	}
	if v.Staging != "" && !t.Config().Block {
		total(v.Staging)
	}
}

// copyOf makes a volume of a source.
func copyOf(t *T, clause string, of *check.Volume, source *csi.VolumeContentSource, size int64) *check.Volume {
	req := t.CreateRequest()
	req.VolumeContentSource = source
	req.CapacityRange = capRange(max(of.CapacityBytes, size), 0)
	vol := check.OK[*csi.CreateVolumeResponse](t, clause, req).GetVolume()
	return &check.Volume{Volume: vol, T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
}

func copiesData(t *T, bySnapshot bool) {
	v, target := use(t)
	mustStore(t, "NP-07", target, "first")
	v.Unpublish(target)
	v.FromNode()
	clause, source := "CV-21", fromVolume(v.VolumeId)
	if bySnapshot {
		clause, source = "CV-20 CS-06", fromSnapshot(readySnapshot(t, v).GetSnapshotId())
		target = v.ToNode().PublishAt()
		mustStore(t, "NP-07", target, "second") // after the moment of the snapshot
		v.Unpublish(target)
		v.FromNode()
	}
	c := copyOf(t, clause, v, source, t.Config().Size)
	at := c.ToNode().PublishAt()
	mustHold(t, clause, "the copy", at, "first")
	mustStore(t, "NP-07", at, "of the copy")
	c.Unpublish(at)
	c.FromNode()
	target = v.ToNode().PublishAt()
	want := "first"
	if bySnapshot {
		want = "second"
	}
	mustHold(t, clause, "the source, after its copy was written", target, want)
}

func biggerCopy(t *T) {
	v, target := use(t)
	mustStore(t, "NP-07", target, "first")
	v.Unpublish(target)
	v.FromNode()
	s := readySnapshot(t, v)
	size := max(2*sizeOf(t, v), t.Config().ExpandSize)
	req := t.CreateRequest()
	req.VolumeContentSource = fromSnapshot(s.GetSnapshotId())
	req.CapacityRange = capRange(size, 0)
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	if code := codeOf(err); code == codes.OutOfRange || code == codes.ResourceExhausted {
		t.NotApplicable("copies are as big as their source: %s", check.Describe(err))
	} else if err != nil {
		t.Fatalf("CV-24", "CreateVolume of a bigger copy: %s", check.Describe(err))
	}
	c := &check.Volume{Volume: resp.GetVolume(), T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
	at := c.ToNode().PublishAt()
	mustHold(t, "CV-24", "the bigger copy", at, "first")
	if got := sizeAt(t, at); got < size*3/4 {
		t.Failf("CV-24 CV-25", "the copy has %d bytes, and a pod sees %d", size, got)
	}
}

func cloneDataOutlives(t *T) {
	v, target := use(t)
	mustStore(t, "NP-07", target, "first")
	v.Unpublish(target)
	v.FromNode()
	c := copyOf(t, "CV-21", v, fromVolume(v.VolumeId), t.Config().Size)
	if _, err := t.Try(v.DeleteRequest()); err != nil {
		t.NotApplicable("a volume stays while it has clones: %s", check.Describe(err))
	}
	mustHold(t, "CV-21", "the clone, after its source was deleted", c.ToNode().PublishAt(), "first")
}

func dataOutlives(t *T) {
	v, target := use(t)
	mustStore(t, "NP-07", target, "first")
	v.Unpublish(target)
	v.FromNode()
	s := readySnapshot(t, v)
	if _, err := t.Try(v.DeleteRequest()); err != nil {
		t.NotApplicable("a volume stays while it has snapshots: %s", check.Describe(err))
	}
	c := copyOf(t, "DV-05", v, fromSnapshot(s.GetSnapshotId()), t.Config().Size)
	mustHold(t, "DV-05", "restored after the volume was deleted", c.ToNode().PublishAt(), "first")
}
