package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// view is one answer that is looked at.
type view struct {
	*inspector
	method    string
	req, resp proto.Message
}

func (v view) bad(subject, clauses, format string, args ...any) {
	call := Call{Method: v.method, Code: "OK", Request: v.redactor.text(v.req), Response: v.redactor.text(v.resp)}
	v.say("H-31/"+subject, clauses, call, v.method+": "+format, args...)
}

// limitOf is how long a string of an answer may be; 0: as long as it likes.
func limitOf(f protoreflect.FieldDescriptor) (limit int, clause string) {
	switch f.Name() {
	case "node_id", "published_node_ids":
		return 256, "NI-03"
	case "fs_type", "volume_mount_group", "mount_flags": // what the CO has sent
		return 0, ""
	}
	return 128, "GEN-13"
}

// sizes looks at each string and map of an answer.
func (v view) sizes(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, val protoreflect.Value) bool {
		switch {
		case f.IsMap():
			v.sizeOfMap(f, val.Map())
		case f.IsList():
			for n := range val.List().Len() {
				if f.Message() != nil {
					v.sizes(val.List().Get(n).Message())
				} else if f.Kind() == protoreflect.StringKind {
					v.sizeOf(f, val.List().Get(n).String())
				}
			}
		case f.Message() != nil && f.Name() != "confirmed": // that is what the CO has sent
			v.sizes(val.Message())
		case f.Kind() == protoreflect.StringKind:
			v.sizeOf(f, val.String())
		}
		return true
	})
}

func (v view) sizeOf(f protoreflect.FieldDescriptor, s string) {
	limit, clause := limitOf(f)
	switch {
	case limit == 0 || len(s) <= limit || holds(v.req.ProtoReflect(), s): // or too long is what was asked for
	case f.Name() == "message":
		v.note("H-31/strings", violation{clauses: clause, warn: true, text: fmt.Sprintf("%s: %s has %d bytes, more than %d", v.method, f.FullName(), len(s), limit)})
	default:
		v.bad("strings", clause, "%s has %d bytes, more than %d", f.FullName(), len(s), limit)
	}
	v.tells(string(f.FullName()), s)
}

func (v view) tells(where, s string) {
	for k, secret := range v.cfg.Secrets {
		if len(secret) >= 4 && strings.Contains(s, secret) {
			v.bad("secrets", "CV-43 CP-19 GEN-20", "%s tells the secret %q", where, k)
		}
	}
}

func (v view) sizeOfMap(f protoreflect.FieldDescriptor, m protoreflect.Map) {
	if f.MapValue().Kind() != protoreflect.StringKind {
		return
	}
	size := 0
	m.Range(func(k protoreflect.MapKey, val protoreflect.Value) bool {
		if n := len(k.String()) + len(val.String()); n <= 4096 || !holds(v.req.ProtoReflect(), val.String()) {
			size += n
		}
		v.tells(string(f.FullName()), val.String())
		return true
	})
	if size > 4096 {
		v.bad("maps", "GEN-14", "%s has %d bytes, more than 4096", f.FullName(), size)
	}
}

// holds tells whether a string is somewhere in a message.
func holds(m protoreflect.Message, s string) (found bool) {
	m.Range(func(f protoreflect.FieldDescriptor, val protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Kind() == protoreflect.StringKind {
				val.Map().Range(func(_ protoreflect.MapKey, x protoreflect.Value) bool {
					found = found || x.String() == s
					return !found
				})
			}
		case f.IsList():
			for n := range val.List().Len() {
				x := val.List().Get(n)
				found = found || f.Message() != nil && holds(x.Message(), s) || f.Kind() == protoreflect.StringKind && x.String() == s
			}
		case f.Message() != nil:
			found = holds(val.Message(), s)
		case f.Kind() == protoreflect.StringKind:
			found = val.String() == s
		}
		return !found
	})
	return found
}

// content looks at what an answer says.
func (v view) content() {
	switch r := v.resp.(type) {
	case *csi.CreateVolumeResponse:
		v.volume(r.GetVolume(), "CV-39")
	case *csi.ControllerGetVolumeResponse:
		v.volume(r.GetVolume(), "CG-05")
		if r.GetStatus() == nil {
			v.bad("lists", "CG-05", "no status")
		}
		v.nodes(r.GetStatus().GetPublishedNodeIds(), "CG-06")
	case *csi.ListVolumesResponse:
		v.listed(r)
	case *csi.CreateSnapshotResponse:
		v.snapshot(r.GetSnapshot())
	case *csi.GetSnapshotResponse:
		v.snapshot(r.GetSnapshot())
	case *csi.ListSnapshotsResponse:
		v.page(len(r.GetEntries()), r.GetNextToken(), v.req.(*csi.ListSnapshotsRequest).GetMaxEntries(), "LS-04")
		for _, e := range r.GetEntries() {
			v.snapshot(e.GetSnapshot())
		}
	case *csi.CreateVolumeGroupSnapshotResponse:
		v.group(r.GetGroupSnapshot())
	case *csi.GetVolumeGroupSnapshotResponse:
		v.group(r.GetGroupSnapshot())
	case *csi.GetCapacityResponse:
		v.capacity(r)
	default:
		v.contentOfNode()
	}
}

func (v view) contentOfNode() {
	switch r := v.resp.(type) {
	case *csi.NodeGetInfoResponse:
		v.nodeInfo(r)
	case *csi.NodeGetVolumeStatsResponse:
		v.usage(r)
	case *csi.ControllerGetVolumeHealthResponse:
		v.health(r.GetVolumeHealth(), v.req.(*csi.ControllerGetVolumeHealthRequest).GetVolumeId(), "GH-05")
	case *csi.NodeGetVolumeHealthResponse:
		v.health(r.GetVolumeHealth(), v.req.(*csi.NodeGetVolumeHealthRequest).GetVolumeId(), "NH-05")
	case *csi.ControllerListVolumeHealthResponse:
		v.page(len(r.GetEntries()), r.GetNextToken(), v.req.(*csi.ControllerListVolumeHealthRequest).GetMaxEntries(), "LH-05")
		for _, e := range r.GetEntries() {
			v.health(e, "", "LH-08")
		}
	case *csi.NodeGetStorageHealthResponse:
		v.storageHealth(r)
	}
}

func (v view) volume(vol *csi.Volume, clause string) {
	id := vol.GetVolumeId()
	if id == "" {
		v.bad("volumes", clause+" GEN-16", "no volume, or one without volume_id")
		return
	}
	if vol.GetCapacityBytes() < 0 {
		v.bad("volumes", "CV-44", "capacity_bytes is %d", vol.GetCapacityBytes())
	}
	old, known := v.contexts[id]
	if known && !sameMap(old, vol.GetVolumeContext()) {
		v.bad("volumes", "CV-42", "volume_context of %s was %q and is %q", id, old, vol.GetVolumeContext())
	}
	v.contexts[id] = vol.GetVolumeContext()
	if len(vol.GetAccessibleTopology()) > 0 && !v.facts.Has("plugin:VOLUME_ACCESSIBILITY_CONSTRAINTS") {
		v.bad("topology", "CV-31", "accessible_topology without VOLUME_ACCESSIBILITY_CONSTRAINTS")
	}
	for _, t := range vol.GetAccessibleTopology() {
		v.topology(t, "CV")
	}
}

func sameMap(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, x := range a {
		if y, ok := b[k]; !ok || x != y {
			return false
		}
	}
	return true
}

func (v view) page(entries int, token string, limit int32, clause string) {
	if limit > 0 && entries > int(limit) {
		v.bad("lists", clause, "%d entries, and max_entries was %d", entries, limit)
	}
	if entries == 0 && token != "" {
		v.note("H-31/lists", violation{clauses: clause, warn: true, text: v.method + ": an empty page with a next_token"})
	}
}

func (v view) listed(r *csi.ListVolumesResponse) {
	v.page(len(r.GetEntries()), r.GetNextToken(), v.req.(*csi.ListVolumesRequest).GetMaxEntries(), "LV-03")
	for _, e := range r.GetEntries() {
		v.volume(e.GetVolume(), "LV-07")
		v.nodes(e.GetStatus().GetPublishedNodeIds(), "LV-08")
		if e.GetStatus() == nil && v.facts.Has("LIST_VOLUMES_PUBLISHED_NODES") {
			v.bad("lists", "LV-08", "%s has no status, and LIST_VOLUMES_PUBLISHED_NODES is advertised", e.GetVolume().GetVolumeId())
		}
	}
}

// nodes: an ID that is empty is none.
func (v view) nodes(ids []string, clause string) {
	if slices.Contains(ids, "") {
		v.bad("lists", clause, "published_node_ids has an empty one: %q", ids)
	}
}

func (v view) snapshot(s *csi.Snapshot) {
	switch {
	case s.GetSnapshotId() == "":
		v.bad("snapshots", "CS-13 GEN-16", "no snapshot, or one without snapshot_id")
	case s.GetSourceVolumeId() == "":
		v.bad("snapshots", "CS-13 GEN-16", "snapshot %s has no source_volume_id", s.GetSnapshotId())
	case s.GetCreationTime() == nil || !s.GetCreationTime().IsValid():
		v.bad("snapshots", "CS-13 GEN-16", "snapshot %s has no creation_time, or no valid one", s.GetSnapshotId())
	case s.GetSizeBytes() < 0:
		v.bad("snapshots", "CS-14", "snapshot %s has size_bytes %d", s.GetSnapshotId(), s.GetSizeBytes())
	}
	if len(s.GetAccessibleTopology()) > 0 && !v.facts.Has("plugin:SNAPSHOT_ACCESSIBILITY_CONSTRAINTS") {
		v.bad("snapshots", "CS-18", "accessible_topology without SNAPSHOT_ACCESSIBILITY_CONSTRAINTS")
	}
	for _, t := range s.GetAccessibleTopology() {
		v.topology(t, "CV")
	}
}

func (v view) group(g *csi.VolumeGroupSnapshot) {
	if g.GetGroupSnapshotId() == "" || !g.GetCreationTime().IsValid() {
		v.bad("groups", "GV-06 GEN-16", "no group snapshot, or one without id or creation_time")
	}
	if len(g.GetSnapshots()) == 0 {
		v.bad("groups", "GV-06 GEN-17", "a group without snapshots")
	}
	for _, s := range g.GetSnapshots() {
		v.snapshot(s)
		if s.GetGroupSnapshotId() != g.GetGroupSnapshotId() {
			v.bad("groups", "GV-10", "member %s is of group %q, not of %q", s.GetSnapshotId(), s.GetGroupSnapshotId(), g.GetGroupSnapshotId())
		}
	}
	if g.GetReadyToUse() && slices.ContainsFunc(g.GetSnapshots(), func(s *csi.Snapshot) bool { return !s.GetReadyToUse() }) {
		v.bad("groups", "GV-09", "the group is ready to use, and a member is not")
	}
}

func (v view) capacity(r *csi.GetCapacityResponse) {
	if r.GetAvailableCapacity() < 0 {
		v.bad("capacity", "GC-05", "available_capacity is %d", r.GetAvailableCapacity())
	}
	if r.GetMaximumVolumeSize().GetValue() < 0 || r.GetMinimumVolumeSize().GetValue() < 0 {
		v.bad("capacity", "GC-06", "maximum or minimum_volume_size is below zero")
	}
}
