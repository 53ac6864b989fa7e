package backendtest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/idempotency"
)

// crowd is how many calls come at once.
const crowd = 50

var concurrencyChecks = []check{
	{
		"concurrent/one name", "csidriver calls it after FindVolume, with the name locked in this process", "Controller",
		func(t *T) {
			table, req := idempotency.NewTable(nil), t.request(t.name())
			ids := t.crowded(func(ctx context.Context, _ int) (string, error) {
				v, err := idempotency.Do(ctx, table, idempotency.Operation{
					Name: "CreateVolume", Keys: []idempotency.Key{idempotency.Exclusive("name:" + req.Name)},
				}, func(ctx context.Context) (*backends.Volume, error) { return t.provision(ctx, req, origin{}) })
				if err != nil {
					return "", err
				}
				return v.ID, nil
			})
			if len(ids) != 1 {
				t.Errorf("%d calls for one name gave the volumes %q", crowd, slices.Sorted(maps.Keys(ids)))
			}
			for id := range ids {
				t.fits(t.lookup(id), req, origin{})
			}
		},
	},
	{
		"concurrent/many names", "never runs two of these for one volume ID, one name or one snapshot ID at a time, save the read-only ones", "Controller",
		func(t *T) {
			reqs := make([]backends.CreateVolumeRequest, crowd)
			for i := range reqs {
				reqs[i] = t.request(t.name())
			}
			ids := t.crowded(func(ctx context.Context, i int) (string, error) {
				v, err := t.provision(ctx, reqs[i], origin{})
				if err != nil {
					return "", err
				}
				t.lookAround(ctx, v.ID)
				return v.ID, nil
			})
			if len(ids) != crowd {
				t.Errorf("%d names gave %d volumes", crowd, len(ids))
			}
			left := slices.Sorted(maps.Keys(ids))
			t.crowded(func(ctx context.Context, i int) (string, error) {
				t.lookAround(ctx, left[(i+1)%len(left)])
				return "", t.remove(ctx, left[i%len(left)])
			})
			for i := range reqs {
				t.gone(reqs[i], "")
			}
		},
	},
	{
		"concurrent/snapshots of one volume", "The rules of Volume, FindVolume, CreateVolume and DeleteVolume hold alike.", "Controller Snapshotter",
		func(t *T) {
			v := t.create(t.name())
			names := make([]string, crowd)
			for i := range names {
				names[i] = t.name()
			}
			ids := t.crowded(func(ctx context.Context, i int) (string, error) {
				s, err := t.take(ctx, t.snapshotRequest(names[i], v.ID))
				if err != nil {
					return "", err
				}
				return s.ID, nil
			})
			if len(ids) != crowd {
				t.Errorf("%d names gave %d snapshots", crowd, len(ids))
			}
		},
	},
}

// crowded calls f from many goroutines at once, fails the check for every error,
// and gives the set of answers.
func (t *T) crowded(f func(ctx context.Context, i int) (string, error)) map[string]bool {
	t.Helper()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		got   = map[string]bool{}
		start = make(chan struct{})
	)
	for i := range crowd {
		wg.Go(func() {
			<-start
			answer, err := f(t.Context(), i)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("one of %d at once: %v", crowd, err)
				return
			}
			got[answer] = true
		})
	}
	close(start)
	wg.Wait()
	return got
}

// lookAround calls what may be called at any time. The volume may be gone.
func (t *T) lookAround(ctx context.Context, id string) {
	_, err := t.b.Controller.Volume(ctx, backends.VolumeRequest{ID: id})
	_ = t.watch("Volume", err)
	if t.c.VolumeLister != nil {
		_, _, err := t.c.VolumeLister.ListVolumes(ctx, backends.ListVolumesRequest{Page: backends.Page{Limit: 10}})
		if t.watch("ListVolumes", err) != nil {
			t.Errorf("ListVolumes: %v", err)
		}
	}
	if t.c.CapacityReporter != nil {
		_, err := t.c.CapacityReporter.Capacity(ctx, backends.CapacityRequest{})
		if t.watch("Capacity", err) != nil {
			t.Errorf("Capacity: %v", err)
		}
	}
	if t.c.HealthChecker != nil {
		_, err := t.c.HealthChecker.VolumeHealth(ctx, backends.VolumeRequest{ID: id})
		_ = t.watch("VolumeHealth", err)
	}
}
