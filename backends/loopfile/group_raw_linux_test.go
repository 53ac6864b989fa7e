package loopfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/fsfreeze"
)

// rawGroup has two volumes that are open as raw devices, which nothing can freeze.
func rawGroup(t *testing.T, o Options) (b *Backend, ids []string, put func(n byte)) {
	t.Helper()
	b = openNode(t, o)
	var devices []*os.File
	for _, name := range []string{"first", "second"} {
		v := create(t, b, name, 16*mib, paramType, typeThin)
		s, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID, Capability: backends.Capability{Mode: backends.SingleNodeWriter, Block: true}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := b.CloseVolume(context.WithoutCancel(t.Context()), backends.CloseVolumeRequest{ID: v.ID, State: s.State}); err != nil {
				t.Error(err)
			}
		})
		f, err := os.OpenFile(fsfreeze.Inside(s.Device.Path), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		ids, devices = append(ids, v.ID), append(devices, f)
	}
	return b, ids, func(n byte) {
		for _, f := range devices {
			if _, err := f.WriteAt([]byte{n}, 0); err != nil {
				t.Error(err)
			}
			if err := f.Sync(); err != nil {
				t.Error(err)
			}
		}
	}
}

// firstBytes of the members of a group, in the order of their volumes.
func firstBytes(t *testing.T, b *Backend, g *backends.GroupSnapshot, ids []string) (got []byte) {
	t.Helper()
	for _, id := range ids {
		for _, m := range g.Snapshots {
			if m.VolumeID != id {
				continue
			}
			data, err := os.ReadFile(snapPath(b, m.ID, id))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, data[0])
		}
	}
	return got
}

// TestGroupOfRawVolumes: what nothing can freeze is cut at one moment, or not at
// all.
func TestGroupOfRawVolumes(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		b, ids, put := rawGroup(t, o)
		put(1)
		// Nobody writes: they are of one moment though they are in use.
		g, err := b.CreateGroupSnapshot(t.Context(), backends.CreateGroupSnapshotRequest{Name: "quiet", VolumeIDs: ids})
		if err != nil {
			t.Fatal(err)
		}
		if got := firstBytes(t, b, g, ids); !bytes.Equal(got, []byte{1, 1}) {
			t.Errorf("the members have %v", got)
		}
		n := byte(1)
		for _, tc := range []struct {
			step   string
			writes int
			fails  bool
		}{{"loopfile.cut.quiet", 1, false}, {"loopfile.cut.linked", 1, false}, {"loopfile.cut.linked", maxCuts * len(ids), b.pool.reflinks()}} {
			left := tc.writes
			b.step = func(s string) {
				if s == tc.step && left > 0 {
					left--
					n++
					put(n)
				}
			}
			name := fmt.Sprint(tc.step, tc.writes)
			g, err := b.CreateGroupSnapshot(t.Context(), backends.CreateGroupSnapshotRequest{Name: name, VolumeIDs: ids})
			switch {
			case tc.fails:
				if !errors.Is(err, backends.ErrPrecondition) {
					t.Errorf("%s: %v", name, err)
				}
			case err != nil:
				t.Errorf("%s: %v", name, err)
			default:
				if got := firstBytes(t, b, g, ids); len(got) != 2 || got[0] != got[1] {
					t.Errorf("%s: the members have %v", name, got)
				}
			}
		}
		b.step = func(string) {}
		time.Sleep(2 * clockTick) // a volume that nobody writes to
		if _, err := b.CreateGroupSnapshot(t.Context(), backends.CreateGroupSnapshotRequest{Name: "again", VolumeIDs: ids}); err != nil {
			t.Error(err)
		}
		wantClean(t, o.Pool)
	})
}
