package csidriver

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/csikit/csikit/backends"
)

// checkSnapshot checks a snapshot that a backend gave before it is sent on.
func checkSnapshot(t *backends.Traits, s *backends.Snapshot) error {
	switch {
	case s == nil:
		return badAnswer("no snapshot and no error")
	case s.ID == "":
		return badAnswer("a snapshot without an ID")
	case !fits(s.ID, maxString):
		return badAnswer("snapshot ID %.200q: more than %d bytes, or not UTF-8", s.ID, maxString)
	case s.VolumeID == "":
		return badAnswer("snapshot %q names no volume", s.ID)
	case !fits(s.VolumeID, maxString) || !fits(s.GroupID, maxString):
		return badAnswer("snapshot %q names a volume or a group of more than %d bytes, or not UTF-8", s.ID, maxString)
	case s.Size < 0:
		return badAnswer("snapshot %q has a size of %d bytes", s.ID, s.Size)
	case !validTime(s.Created):
		return badAnswer("snapshot %q was created at %v", s.ID, s.Created)
	case len(s.Topology) > 0 && !t.SnapshotTopology:
		return badAnswer("snapshot %q has a topology, and Traits.SnapshotTopology is false", s.ID)
	}
	return checkTopology(t, "snapshot", s.ID, s.Topology)
}

// validTime tells a moment from the zero value and from what protobuf cannot say.
func validTime(t time.Time) bool { return !t.IsZero() && timestamppb.New(t).IsValid() }

// checkCut checks a snapshot that was just made against the request for it.
func checkCut(t *backends.Traits, s *backends.Snapshot, req *backends.CreateSnapshotRequest) error {
	if err := checkSnapshot(t, s); err != nil {
		return err
	}
	switch {
	case s.VolumeID != req.VolumeID:
		return badAnswer("snapshot %q is of volume %q, asked for was one of %q", s.ID, s.VolumeID, req.VolumeID)
	case !reachable(s.Topology, req.Topology):
		return badAnswer("snapshot %q is usable in none of the requisite topologies", s.ID)
	}
	return nil
}

// snapshotDiffers names the field by which an existing snapshot is not what is
// asked for; "" when it is.
func snapshotDiffers(s *backends.Snapshot, req *backends.CreateSnapshotRequest) (field, detail string) {
	switch {
	case s.VolumeID != req.VolumeID:
		return "source_volume_id", fmt.Sprintf("it is of volume %q", s.VolumeID)
	case !sameFingerprint(s.Fingerprint, req.Fingerprint):
		return "parameters", "it was made with others"
	case !reachable(s.Topology, req.Topology):
		return "accessibility_requirements", "it is usable in none of the requisite topologies"
	}
	return "", ""
}

// checkGroup checks a group snapshot that a backend gave before it is sent on.
func checkGroup(t *backends.Traits, g *backends.GroupSnapshot) error {
	switch {
	case g == nil:
		return badAnswer("no group snapshot and no error")
	case g.ID == "":
		return badAnswer("a group snapshot without an ID")
	case !fits(g.ID, maxString):
		return badAnswer("group snapshot ID %.200q: more than %d bytes, or not UTF-8", g.ID, maxString)
	case !validTime(g.Created):
		return badAnswer("group snapshot %q was created at %v", g.ID, g.Created)
	case len(g.Snapshots) == 0:
		return badAnswer("group snapshot %q has no members", g.ID)
	}
	for i := range g.Snapshots {
		s := &g.Snapshots[i]
		if err := checkSnapshot(t, s); err != nil {
			return fmt.Errorf("group snapshot %q: %w", g.ID, err)
		}
		if s.GroupID != "" && s.GroupID != g.ID {
			return badAnswer("group snapshot %q has a member %q of group %q", g.ID, s.ID, s.GroupID)
		}
	}
	return checkMembers(g)
}

// checkMembers wants each snapshot, and each volume, once.
func checkMembers(g *backends.GroupSnapshot) error {
	for _, list := range [][]string{membersOf(g), volumesOf(g)} {
		if n := len(list); len(slices.Compact(list)) != n {
			return badAnswer("group snapshot %q has a member twice, or two of one volume", g.ID)
		}
	}
	return nil
}

// membersOf and volumesOf give sorted lists.
func membersOf(g *backends.GroupSnapshot) []string {
	return sortedBy(g.Snapshots, func(s *backends.Snapshot) string { return s.ID })
}

func volumesOf(g *backends.GroupSnapshot) []string {
	return sortedBy(g.Snapshots, func(s *backends.Snapshot) string { return s.VolumeID })
}

func sortedBy(list []backends.Snapshot, key func(*backends.Snapshot) string) []string {
	keys := make([]string, len(list))
	for i := range list {
		keys[i] = key(&list[i])
	}
	slices.Sort(keys)
	return keys
}

// groupDiffers is snapshotDiffers for a group.
func groupDiffers(g *backends.GroupSnapshot, req *backends.CreateGroupSnapshotRequest) (field, detail string) {
	switch {
	case !slices.Equal(volumesOf(g), req.VolumeIDs):
		return "source_volume_ids", "it is of other volumes"
	case !sameFingerprint(g.Fingerprint, req.Fingerprint):
		return "parameters", "it was made with others"
	}
	return "", ""
}
