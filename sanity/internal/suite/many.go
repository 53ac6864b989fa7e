package suite

import (
	"context"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// probeBusy: a hundred calls run, of twenty volumes.
func probeBusy(t *T) {
	t.Mode()
	ctx, cancel := context.WithCancel(t.Context())
	reqs := make([]*csi.CreateVolumeRequest, 20)
	for i := range reqs {
		reqs[i] = t.CreateRequest()
	}
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			_, _ = t.Send(ctx, proto.Clone(reqs[i%len(reqs)])) // it is for being busy; what came of it is other checks'
		})
	}
	var slowest time.Duration
	for range 20 {
		start := time.Now()
		resp, err := check.Do[*csi.ProbeResponse](t, &csi.ProbeRequest{})
		slowest = max(slowest, time.Since(start))
		if err != nil && codeOf(err) != codes.Unavailable {
			t.Failf("ID-14", "Probe while 100 calls run: got %s, want OK", check.Describe(err))
		}
		if err == nil && resp.GetReady() != nil && !resp.GetReady().GetValue() {
			t.Failf("ID-17", "Probe while 100 calls run: ready is false")
		}
	}
	wg.Wait()
	cancel()
	if slowest > time.Second {
		t.Warnf("ID-14", "Probe took %v while 100 calls ran: livenessprobe waits 3 s, and kills the driver then", slowest)
	}
}

// workers make many things.
const workers = 8

// fill has up to n things made, for as long as there is time, and gives what came.
func fill(t *T, n int, limit time.Duration, make func() (id string, err error)) (ids []string) {
	end := time.Now().Add(min(limit, t.Config().CallTimeout))
	var mu sync.Mutex
	t.Go(workers, func(int) {
		for range n / workers {
			if time.Now().After(end) {
				return
			}
			id, err := make()
			if err != nil {
				return // there may be no room for so many
			}
			mu.Lock()
			ids = append(ids, id)
			mu.Unlock()
		}
	})
	return ids
}

// empty deletes them. Cleaning up says when that fails.
func empty(t *T, ids []string, request func(id string) proto.Message) {
	t.Go(workers, func(i int) {
		for n := i; n < len(ids); n += workers {
			_, _ = t.Try(request(ids[n])) // as above
		}
	})
}

// mostAnswer is what a client of gRPC takes unless it is told otherwise.
const mostAnswer = 4 << 20

func manyVolumes(t *T) {
	t.Mode()
	before := usedBefore(t)
	ids := fill(t, t.Config().Many, 10*time.Second, func() (string, error) {
		req := t.CreateRequest()
		req.CapacityRange = nil
		resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
		return resp.GetVolume().GetVolumeId(), err
	})
	for range 2 {
		if n := proto.Size(check.OK[*csi.ListVolumesResponse](t, "LV-01", &csi.ListVolumesRequest{})); n > mostAnswer {
			t.Failf("LV-04", "an answer of ListVolumes has %d bytes: clients take 4 MiB", n)
		}
	}
	all := volumeIDs(t)
	for _, id := range ids {
		if all[id] == nil {
			t.Fatalf("LV-02", "of %d volumes ListVolumes does not have %s", len(ids), id)
		}
	}
	empty(t, ids, func(id string) proto.Message {
		return &csi.DeleteVolumeRequest{VolumeId: id, Secrets: t.Config().Secrets}
	})
	closedAgain(t, "volumes", len(ids), before)
}

func manySnapshots(t *T) {
	v := t.NewVolume()
	before := usedBefore(t)
	ids := fill(t, t.Config().Many, 3*time.Second, func() (string, error) {
		resp, err := check.Try[*csi.CreateSnapshotResponse](t, t.SnapshotRequest(v.VolumeId))
		return resp.GetSnapshot().GetSnapshotId(), err
	})
	for range 2 {
		if n := proto.Size(check.OK[*csi.ListSnapshotsResponse](t, "LS-01", &csi.ListSnapshotsRequest{Secrets: t.Config().Secrets})); n > mostAnswer {
			t.Failf("LS-05", "an answer of ListSnapshots has %d bytes: clients take 4 MiB", n)
		}
	}
	all := map[string]bool{}
	for _, s := range snapshotsOf(t, v.VolumeId) {
		all[s.GetSnapshotId()] = true
	}
	for _, id := range ids {
		if !all[id] {
			t.Fatalf("LS-02", "of %d snapshots ListSnapshots does not have %s", len(ids), id)
		}
	}
	empty(t, ids, func(id string) proto.Message {
		return &csi.DeleteSnapshotRequest{SnapshotId: id, Secrets: t.Config().Secrets}
	})
	closedAgain(t, "snapshots", len(ids), before)
}
