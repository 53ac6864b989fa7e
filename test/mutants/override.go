package mutants

import (
	"context"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// hide has a volume be unknown for a while, or (0) for good.
func (r *Rig) hide(id string, d time.Duration) {
	until := time.Now().Add(d)
	if d == 0 {
		until = until.AddDate(1, 0, 0)
	}
	r.hidden.put(id, until)
}

func (r *Rig) isHidden(id string) bool {
	until, ok := r.hidden.get(id)
	return ok && time.Now().Before(until)
}

// hideVolumes has hidden volumes answer NOT_FOUND, be missing in lists, and be
// deleted with OK, while they are there.
func hideVolumes(r *Rig) {
	r.every(func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error) {
		id := stringField(req, "volume_id")
		if id == "" {
			id = stringField(req, "source_volume_id")
		}
		switch {
		case method == "DeleteVolume" && r.isHidden(id):
			return &csi.DeleteVolumeResponse{}, nil
		case r.isHidden(id) && method != "NodeUnpublishVolume" && method != "NodeUnstageVolume" && method != "ControllerUnpublishVolume":
			return nil, status.Errorf(codes.NotFound, "volume %s does not exist", id)
		}
		resp, err := next(ctx, req)
		if list, ok := resp.(*csi.ListVolumesResponse); ok && err == nil {
			list.Entries = without(list.GetEntries(), func(e *csi.ListVolumesResponse_Entry) bool { return r.isHidden(e.GetVolume().GetVolumeId()) })
		}
		return resp, err
	})
}

// stringField is a field of a message by name; "" when it has none.
func stringField(m proto.Message, name protoreflect.Name) string {
	f := m.ProtoReflect().Descriptor().Fields().ByName(name)
	if f == nil || f.Kind() != protoreflect.StringKind || f.IsList() {
		return ""
	}
	return m.ProtoReflect().Get(f).String()
}

func setString(m proto.Message, name protoreflect.Name, v string) {
	m.ProtoReflect().Set(m.ProtoReflect().Descriptor().Fields().ByName(name), protoreflect.ValueOfString(v))
}

// expandLost reads the size, and then writes it: the bigger of two comes first.
func expandLost(r *Rig) {
	var sizes, biggest memory[int64]
	around(r, func(ctx context.Context, q *csi.ControllerExpandVolumeRequest, next expandNext) (*csi.ControllerExpandVolumeResponse, error) {
		id, want := q.GetVolumeId(), q.GetCapacityRange().GetRequiredBytes()
		before, _ := sizes.get(id)
		top, _ := biggest.get(id)
		biggest.put(id, max(top, want))
		resp, err := next(ctx, q)
		if err != nil {
			return nil, err
		}
		resp.CapacityBytes = max(want, before)
		after(ctx, window)
		if top, _ := biggest.get(id); want < top {
			after(ctx, window)
		}
		sizes.put(id, max(want, before))
		return resp, nil
	})
	r.every(func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
		resp, err := next(ctx, req)
		if err != nil {
			return nil, err
		}
		eachVolume(resp, func(v *csi.Volume) {
			if size, ok := sizes.get(v.GetVolumeId()); ok {
				v.CapacityBytes = size
			}
		})
		return resp, nil
	})
}

// eachVolume visits the volumes of an answer.
func eachVolume(m proto.Message, edit func(*csi.Volume)) {
	switch m := m.(type) {
	case *csi.CreateVolumeResponse:
		if m.GetVolume() != nil {
			edit(m.GetVolume())
		}
	case *csi.ControllerGetVolumeResponse:
		if m.GetVolume() != nil {
			edit(m.GetVolume())
		}
	case *csi.ListVolumesResponse:
		for _, e := range m.GetEntries() {
			edit(e.GetVolume())
		}
	}
}

// eachSnapshot visits the snapshots of an answer.
func eachSnapshot(m proto.Message, edit func(*csi.Snapshot)) {
	switch m := m.(type) {
	case *csi.CreateSnapshotResponse:
		edit(m.GetSnapshot())
	case *csi.GetSnapshotResponse:
		edit(m.GetSnapshot())
	case *csi.ListSnapshotsResponse:
		for _, e := range m.GetEntries() {
			edit(e.GetSnapshot())
		}
	case *csi.CreateVolumeGroupSnapshotResponse:
		for _, s := range m.GetGroupSnapshot().GetSnapshots() {
			edit(s)
		}
	case *csi.GetVolumeGroupSnapshotResponse:
		for _, s := range m.GetGroupSnapshot().GetSnapshots() {
			edit(s)
		}
	}
}

// volumesAs edits each volume in each answer.
func volumesAs(edit func(*csi.Volume)) func(*Rig) {
	return func(r *Rig) {
		r.every(func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
			resp, err := next(ctx, req)
			if err == nil {
				eachVolume(resp, edit)
			}
			return resp, err
		})
	}
}

// snapshotsAs edits each snapshot in each answer.
func snapshotsAs(edit func(*csi.Snapshot)) func(*Rig) {
	return func(r *Rig) {
		r.every(func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
			resp, err := next(ctx, req)
			if err == nil {
				eachSnapshot(resp, edit)
			}
			return resp, err
		})
	}
}
