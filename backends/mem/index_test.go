package mem

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/csikit/csikit/backends"
)

// TestIndex: whatever comes and goes, lists and free space are what adding up
// everything gives.
func TestIndex(t *testing.T) {
	b := open(t, &Options{Node: "n"})
	ctx, rnd, s := t.Context(), rand.New(rand.NewPCG(1, 2)), b.store
	pick := func(of string) string { return fmt.Sprint(of, rnd.IntN(5)) }
	one := func() string { return idOf(volumePrefix, pick("v")) }
	steps := []func() error{
		func() error {
			_, err := b.CreateVolume(ctx, backends.CreateVolumeRequest{Name: pick("v"), Size: int64(rnd.IntN(9)) << 20})
			return err
		},
		func() error { return b.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: one()}) },
		func() error {
			_, err := b.ExpandVolume(ctx, backends.ExpandVolumeRequest{ID: one(), Size: int64(rnd.IntN(99)) << 20})
			return err
		},
		func() error {
			_, err := b.CreateSnapshot(ctx, backends.CreateSnapshotRequest{Name: pick("s"), VolumeID: one()})
			return err
		},
		func() error {
			return b.DeleteSnapshot(ctx, backends.DeleteSnapshotRequest{ID: idOf(snapshotPrefix, pick("s"))})
		},
		func() error {
			_, err := b.CreateGroupSnapshot(ctx, backends.CreateGroupSnapshotRequest{Name: pick("g"), VolumeIDs: []string{one()}})
			return err
		},
		func() error {
			return b.DeleteGroupSnapshot(ctx, backends.DeleteGroupSnapshotRequest{ID: idOf(groupPrefix, pick("g"))})
		},
		func() error {
			_, err := b.CreateEphemeral(ctx, backends.CreateEphemeralRequest{ID: pick("e")})
			return err
		},
		func() error { return b.DeleteEphemeral(ctx, backends.DeleteEphemeralRequest{ID: pick("e")}) },
		func() error { // killed, and begun anew by the next call, or recovered
			defer b.Inject(Fault{At: Midway, Err: errors.New("killed")})()
			_, err := b.CreateVolume(ctx, backends.CreateVolumeRequest{Name: pick("v"), Size: 7 << 20})
			return err
		},
		func() error { return b.RecoverController(ctx) },
	}
	worked := make(map[int]bool)
	for range 2000 {
		i := rnd.IntN(len(steps))
		worked[i] = worked[i] || steps[i]() == nil
		var used int64
		for _, set := range []map[string]*volume{s.volumes, s.ephemeral} {
			for v := range maps.Values(set) {
				used += v.Capacity
			}
		}
		for snap := range maps.Values(s.snapshots) {
			used += snap.Size
		}
		if free := s.free(defaultZone); free != s.o.Size-used {
			t.Fatalf("step %d: %d bytes are free, should be %d", i, free, s.o.Size-used)
		}
		vols, _, err := b.ListVolumes(ctx, backends.ListVolumesRequest{})
		if err != nil || !slices.Equal(idsOf(vols), whole(s.volumes)) {
			t.Fatalf("step %d: volumes %v, %v", i, idsOf(vols), err)
		}
		if got := inOrder(s.snapshots, &s.snapshotIDs); !slices.Equal(got, slices.Sorted(maps.Keys(s.snapshots))) {
			t.Fatalf("step %d: snapshots %v", i, got)
		}
	}
	if len(worked) < len(steps) || len(s.volumes) == 0 {
		t.Errorf("steps that worked: %v", worked)
	}
	for i := range steps {
		if i != 9 && !worked[i] {
			t.Errorf("step %d never worked", i)
		}
	}
}

func idsOf(vols []*backends.Volume) (ids []string) {
	for _, v := range vols {
		ids = append(ids, v.ID)
	}
	return ids
}

func whole(set map[string]*volume) (ids []string) {
	for _, id := range slices.Sorted(maps.Keys(set)) {
		if !set[id].half {
			ids = append(ids, id)
		}
	}
	return ids
}
