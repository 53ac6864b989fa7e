package model

import (
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// checkRead: what a list or a get shows was there while it ran.
func (w *world) checkRead(c *asking) {
	switch out := c.resp.(type) {
	case *csi.ControllerGetVolumeResponse:
		w.checkShown(c, map[string]bool{out.GetVolume().GetVolumeId(): true}, c.about)
	case *csi.GetSnapshotResponse:
		w.checkShown(c, map[string]bool{out.GetSnapshot().GetSnapshotId(): true}, c.about)
	case *csi.GetVolumeGroupSnapshotResponse:
		w.checkShown(c, map[string]bool{out.GetGroupSnapshot().GetGroupSnapshotId(): true}, c.about)
	case *csi.ListVolumesResponse:
		shown := map[string]bool{}
		for _, e := range out.GetEntries() {
			shown[e.GetVolume().GetVolumeId()] = true
		}
		for _, v := range volumeNames {
			w.checkShown(c, shown, object(v))
		}
	case *csi.ListSnapshotsResponse:
		shown := map[string]bool{}
		for _, e := range out.GetEntries() {
			shown[e.GetSnapshot().GetSnapshotId()] = true
		}
		for _, s := range snapshotNames {
			w.checkShown(c, shown, object(s))
		}
	}
}

// checkShown: what is shown may have been there, and what was surely there is
// shown.
func (w *world) checkShown(c *asking, shown map[string]bool, o object) {
	may, must := w.existed(o, c.arrived.at, c.handled.at)
	if shown[ids[o]] && !may {
		w.violated("%v shows %v, which was not there", c, o)
	}
	if !shown[ids[o]] && must {
		w.violated("%v does not show %v, which was there", c, o)
	}
}

// existed says whether an object may have been there at some moment between two
// times, and whether it was there all the time. What changes it is known by the
// operations that do.
func (w *world) existed(o object, from, to time.Duration) (may, must bool) {
	there, changed := false, false // after the last change before from; one was at work since
	for _, x := range w.ops {
		if x.call.about != o || !x.call.shapes() {
			continue
		}
		if (x.last.at >= from || x.inside > 0) && x.first.at <= to {
			changed = true
		}
	}
	if changed {
		return true, false
	}
	var last moment
	unknown := false // a process died over it
	for _, x := range w.ops {
		if x.call.about != o || !x.call.shapes() || x.last.at >= from {
			continue
		}
		if x.died && x.last.seq > last.seq {
			last, there, unknown = x.last, false, true
		}
		for _, e := range x.events {
			if e.ended.seq > last.seq {
				last, there, unknown = e.ended, e.seen[o].there, false
			}
		}
	}
	return there || unknown, there
}

// shapes tells whether a call makes or deletes its object.
func (c *asking) shapes() bool {
	switch c.kind {
	case "CreateVolume", "DeleteVolume", "CreateSnapshot", "DeleteSnapshot", "CreateVolumeGroupSnapshot", "DeleteVolumeGroupSnapshot":
		return true
	}
	return false
}
