package mutants

import (
	"errors"
	"io"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

func snapshotSection(s *Script) {
	c := s.controller()
	id, other := s.volume("a", mountCapability()), s.volume("b", mountCapability())
	cut := func(name, of string) *csi.CreateSnapshotRequest {
		return &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: of, Secrets: secretsForTest()}
	}
	snap, err := c.CreateSnapshot(s.ctx, cut("s", id))
	s.note("snapshot", snap, err)
	snapID := snap.GetSnapshot().GetSnapshotId()
	each(s, "snapshot", c.CreateSnapshot, cut("s", id), cut("s", other), cut("s2", id), cut("s3", "v-none"), cut("sö", id), cut(long("s"), id))
	each(s, "get", c.GetSnapshot, &csi.GetSnapshotRequest{SnapshotId: snapID}, &csi.GetSnapshotRequest{SnapshotId: "s-none"})
	each(s, "list", c.ListSnapshots, &csi.ListSnapshotsRequest{}, &csi.ListSnapshotsRequest{SnapshotId: snapID},
		&csi.ListSnapshotsRequest{SourceVolumeId: id}, &csi.ListSnapshotsRequest{SourceVolumeId: other}, &csi.ListSnapshotsRequest{SnapshotId: "s-none"},
		&csi.ListSnapshotsRequest{MaxEntries: 2})
	page, err := c.ListSnapshots(s.ctx, &csi.ListSnapshotsRequest{SourceVolumeId: id, MaxEntries: 2})
	s.note("page", page, err)
	each(s, "page", c.ListSnapshots, &csi.ListSnapshotsRequest{SourceVolumeId: id, MaxEntries: 2, StartingToken: page.GetNextToken()})
	mount := capabilities(mountCapability())
	each(s, "restore", c.CreateVolume,
		&csi.CreateVolumeRequest{Name: "r", VolumeCapabilities: mount, VolumeContentSource: fromSnapshot(snapID), CapacityRange: size(64<<20, 0)},
		&csi.CreateVolumeRequest{Name: "r", VolumeCapabilities: mount, CapacityRange: size(64<<20, 0)},
		&csi.CreateVolumeRequest{Name: "r2", VolumeCapabilities: mount, VolumeContentSource: fromSnapshot(snapID), CapacityRange: size(0, 1<<20)},
		&csi.CreateVolumeRequest{Name: "r3", VolumeCapabilities: mount, VolumeContentSource: fromSnapshot(snapID), CapacityRange: size(128<<20, 0)})
	each(s, "delete", c.DeleteSnapshot, &csi.DeleteSnapshotRequest{SnapshotId: snapID}, &csi.DeleteSnapshotRequest{SnapshotId: snapID})
	each(s, "deleted", c.ListSnapshots, &csi.ListSnapshotsRequest{SnapshotId: snapID})
	each(s, "delete the volume", c.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: id})
	each(s, "left", c.ListSnapshots, &csi.ListSnapshotsRequest{})
}

// long is a name of nearly 128 bytes.
func long(s string) string {
	for len(s) < 120 {
		s += "-long"
	}
	return s
}

func groupSection(s *Script) {
	g, c := s.group(), s.controller()
	a, b := s.volume("a", mountCapability()), s.volume("b", mountCapability())
	cut := func(name string, of ...string) *csi.CreateVolumeGroupSnapshotRequest {
		return &csi.CreateVolumeGroupSnapshotRequest{Name: name, SourceVolumeIds: of}
	}
	group, err := g.CreateVolumeGroupSnapshot(s.ctx, cut("g", a, b))
	s.note("group", group, err)
	id, members := group.GetGroupSnapshot().GetGroupSnapshotId(), []string{}
	for _, m := range group.GetGroupSnapshot().GetSnapshots() {
		members = append(members, m.GetSnapshotId())
	}
	each(s, "group", g.CreateVolumeGroupSnapshot, cut("g", a, b), cut("g", a), cut("h", a, "v-none"))
	get := func(id string, members ...string) *csi.GetVolumeGroupSnapshotRequest {
		return &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: id, SnapshotIds: members}
	}
	each(s, "get", g.GetVolumeGroupSnapshot, get(id, members...), get("g-none", members...), get(id, "s-none"))
	each(s, "list", c.ListSnapshots, &csi.ListSnapshotsRequest{})
	for _, m := range members {
		each(s, "delete a member", c.DeleteSnapshot, &csi.DeleteSnapshotRequest{SnapshotId: m})
	}
	remove := func(members ...string) *csi.DeleteVolumeGroupSnapshotRequest {
		return &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: id, SnapshotIds: members}
	}
	each(s, "delete", g.DeleteVolumeGroupSnapshot, remove("s-none"), remove(members...), remove(members...))
	each(s, "left", c.ListSnapshots, &csi.ListSnapshotsRequest{})
}

func metadataSection(s *Script) {
	c := s.controller()
	id := s.volume("a", mountCapability())
	snap, err := c.CreateSnapshot(s.ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: id})
	s.note("snapshot", snap, err)
	ask := func(id string, offset int64, limit int32) {
		stream, err := s.blocks().GetMetadataAllocated(s.ctx, &csi.GetMetadataAllocatedRequest{SnapshotId: id, StartingOffset: offset, MaxResults: limit})
		received(s, stream, err)
	}
	id = snap.GetSnapshot().GetSnapshotId()
	ask(id, 0, 0)
	ask(id, 0, 2)
	ask(id, 2<<16, 0)
	ask("s-none", 0, 0)
	ask("", 0, 0)
	ask(id, 1<<40, 0)
	stream, err := s.blocks().GetMetadataDelta(s.ctx, &csi.GetMetadataDeltaRequest{BaseSnapshotId: id, TargetSnapshotId: id})
	received(s, stream, err)
}

// received notes each message of a stream.
func received[R any, P interface {
	*R
	proto.Message
}](s *Script, stream grpc.ServerStreamingClient[R], err error) {
	for err == nil {
		var m P
		m, err = stream.Recv()
		if err == nil {
			s.note("message", m, nil)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	s.note("end", nil, err)
}
