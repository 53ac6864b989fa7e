package mounter_test

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// TestTwoClients has several clients ask for everything at once, of two volumes
// and on the same paths. Whatever the answers were, no path has two mounts, no
// target has another volume than its OK said, and all of it can be undone.
func TestTwoClients(t *testing.T) {
	for seed := range uint64(20) {
		r := newRig(t, nil)
		r.Kernel.AddDisk("/dev/b", gib, backends.Identity{Serial: "B"})
		r.node.sources["w"] = &backends.Source{Device: &backends.Device{Path: "/dev/b", Identity: backends.Identity{Serial: "B"}}}
		paths := []string{filepath.Join(r.dir, "one"), filepath.Join(r.dir, "two"), filepath.Join(r.dir, "three")}
		var wg sync.WaitGroup
		for client := range uint64(4) {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, client)) //nolint:gosec // the same at each run
				for range 40 {
					chaos(t, r, rnd, paths)
				}
			})
		}
		wg.Wait()
		seen := map[string]bool{}
		for _, m := range r.Kernel.Mounts() {
			if seen[m.Point] {
				t.Errorf("seed %d: two mounts at %s", seed, m.Point)
			}
			seen[m.Point] = true
		}
		sweep(t, r, paths)
		r.clean()
		if r.node.isOpen("w") || r.disk.IsReadOnly() || r.mkfs() > 2 {
			t.Errorf("seed %d: w open %v, read-only %v, %d mkfs", seed, r.node.isOpen("w"), r.disk.IsReadOnly(), r.mkfs())
		}
		if t.Failed() {
			return
		}
	}
}

// chaos is one call of one client.
func chaos(t *testing.T, r *rig, rnd *rand.Rand, paths []string) {
	pick := func() string { return paths[rnd.IntN(len(paths))] }
	id, path, staging := []string{"v", "w"}[rnd.IntN(2)], pick(), pick()
	c := backends.Capability{Mode: backends.SingleNodeMultiWriter, Block: id == "v" && rnd.IntN(4) == 0}
	var err error
	switch rnd.IntN(5) {
	case 0:
		err = r.Stage(t.Context(), mounter.StageRequest{ID: id, Path: path, Capability: c})
	case 1:
		err = r.Publish(t.Context(), mounter.PublishRequest{ID: id, Path: path, StagingPath: staging, Capability: c, ReadOnly: rnd.IntN(2) == 0})
	case 2:
		err = r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: id, Path: path})
	case 3:
		err = r.Unstage(t.Context(), mounter.UnstageRequest{ID: id, Path: path})
	case 4:
		_, err = r.Stats(t.Context(), mounter.StatsRequest{ID: id, Path: path})
	}
	if errors.Is(err, backends.ErrPending) {
		t.Errorf("pending without a deadline: %v", err)
	}
}

// sweep undoes everything. A path is a target and a staging path of both volumes
// here, and each round frees what the one before it has left in the way.
func sweep(t *testing.T, r *rig, paths []string) {
	t.Helper()
	var rounds [8]error
	for i := range rounds {
		last := &rounds[i]
		for _, p := range paths {
			for _, id := range []string{"v", "w"} {
				if err := r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: id, Path: p}); err != nil {
					*last = errors.Join(*last, err)
				}
				if err := r.Unstage(t.Context(), mounter.UnstageRequest{ID: id, Path: p}); err != nil {
					*last = errors.Join(*last, err)
				}
			}
		}
	}
	if rounds[7] != nil {
		t.Errorf("cannot be undone: %v", rounds)
	}
}
