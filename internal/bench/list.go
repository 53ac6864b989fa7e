package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/backends/mem"
)

// lists measures ListVolumes beside a bare server that has the same pages ready
// made: what is left of the bare one's time is gRPC, protobuf and the client.
func lists(ctx context.Context, c config, dir string) (*table, error) {
	t := &table{title: "ListVolumes over a Unix socket"}
	for _, n := range c.volumes {
		b, err := mem.New(nil)
		if err == nil {
			err = listBackend(ctx, c, dir, t, "mem", b, n)
		}
		if err != nil {
			return nil, err
		}
	}
	return t, listPool(ctx, c, dir, t)
}

// pooled is how many volumes the pool of loop files has: to make one it looks at
// all others, and ten thousand would take longer than the rest of the benchmark.
const pooled = 1000

// listPool lists the volumes of a pool of loop files, in memory: what is read
// again is in the page cache anyway.
func listPool(ctx context.Context, c config, dir string, t *table) (err error) {
	pool := filepath.Join(dir, "list-pool")
	if err := mountMemory(pool); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmountMemory(pool)) }()
	b, err := loopfile.New(loopfile.Options{Pool: pool, Node: "bench", Thin: true, Overcommit: 1000, Init: true, AllowRootFS: true})
	if err != nil {
		return err
	}
	err = listBackend(ctx, c, dir, t, "loopfile", b, min(pooled, c.volumes[0]))
	return errors.Join(err, b.Close())
}

// listBackend fills a backend with n volumes and adds its rows.
func listBackend(ctx context.Context, c config, dir string, t *table, name string, b driverBackend, n int) error {
	if err := fill(ctx, b, n); err != nil {
		return err
	}
	server, err := serveBackend(ctx, dir, fmt.Sprintf("%s-%d", name, n), b)
	if err != nil {
		return err
	}
	rows, err := listRows(ctx, c, dir, name, server, n)
	t.rows = append(t.rows, rows...)
	return errors.Join(err, server.stop())
}

// fill makes n volumes, several at a time: what waits for the disk waits together.
func fill(ctx context.Context, b backends.Controller, n int) error {
	errs := make([]error, 64)
	var wg sync.WaitGroup
	var next atomic.Int64
	for i := range errs {
		wg.Go(func() {
			for errs[i] == nil {
				v := next.Add(1)
				if v > int64(n) {
					return
				}
				_, errs[i] = b.CreateVolume(ctx, backends.CreateVolumeRequest{Name: fmt.Sprintf("pvc-%d", v), Size: 1 << 20})
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// listGoals are those of ten thousand volumes.
var listGoals = map[int32]goal{0: atMost(nanoseconds, 20e6, -1), 100: atMost(nanoseconds, 30e6, -1)}

func listRows(ctx context.Context, c config, dir, name string, server *served, n int) ([]*row, error) {
	if err := awaitReady(ctx, server.ClientConn); err != nil {
		return nil, err
	}
	var rows []*row
	for _, entries := range []int32{0, 100} {
		pages, err := everyPage(ctx, server, n, entries)
		if err != nil {
			return nil, err
		}
		bare, err := serveBare(ctx, dir, fmt.Sprintf("bare-%s-%d-%d", name, n, entries), &idle{pages: pages})
		if err != nil {
			return nil, err
		}
		r := &row{
			item:   fmt.Sprintf("%s, %d volumes, %s", name, n, pagesText(len(pages))),
			csikit: &figure{}, others: []*figure{{name: "bare, pages ready made"}},
		}
		if n == 10_000 && name == "mem" {
			r.goal = listGoals[entries]
		}
		err = interleave(ctx, c.rounds, r.csikit.listing(ctx, server, n, entries), r.others[0].listing(ctx, bare, n, entries))
		if err = errors.Join(err, bare.stop()); err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func pagesText(n int) string {
	if n == 1 {
		return "1 page"
	}
	return fmt.Sprintf("%d pages", n)
}

// listing is a task that walks through all pages once.
func (f *figure) listing(ctx context.Context, server *served, want int, entries int32) task {
	return func(context.Context) error {
		begin, got := time.Now(), 0
		err := walk(ctx, server, entries, func(_ string, r *csi.ListVolumesResponse) { got += len(r.GetEntries()) })
		f.rounds.add(float64(time.Since(begin)))
		if err == nil && got != want {
			err = fmt.Errorf("a list of %d volumes, there are %d", got, want)
		}
		return err
	}
}

// walk follows the tokens.
func walk(ctx context.Context, server *served, entries int32, page func(token string, r *csi.ListVolumesResponse)) error {
	client, token := csi.NewControllerClient(server.ClientConn), ""
	for {
		r, err := client.ListVolumes(ctx, &csi.ListVolumesRequest{MaxEntries: entries, StartingToken: token})
		if err != nil {
			return err
		}
		page(token, r)
		if token = r.GetNextToken(); token == "" {
			return nil
		}
	}
}

// everyPage gives the pages by their tokens, and sees to it that every volume
// stands in them once.
func everyPage(ctx context.Context, server *served, want int, entries int32) (map[string]*csi.ListVolumesResponse, error) {
	pages := make(map[string]*csi.ListVolumesResponse)
	seen := make(map[string]bool)
	var twice error
	err := walk(ctx, server, entries, func(token string, r *csi.ListVolumesResponse) {
		pages[token] = r
		for _, e := range r.GetEntries() {
			if seen[e.GetVolume().GetVolumeId()] {
				twice = fmt.Errorf("volume %s was listed twice", e.GetVolume().GetVolumeId())
			}
			seen[e.GetVolume().GetVolumeId()] = true
		}
	})
	if err = errors.Join(err, twice); err == nil && len(seen) != want {
		err = fmt.Errorf("%d of %d volumes were listed", len(seen), want)
	}
	return pages, err
}
