package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// lists measures ListVolumes beside a bare server that has the same pages ready
// made: what is left of the bare one's time is gRPC, protobuf and the client. The
// servers are processes of their own, as a driver is.
func lists(ctx context.Context, c config, dir string) (*table, error) {
	t := &table{title: "ListVolumes over a Unix socket"}
	for _, n := range c.volumes {
		if err := t.list(ctx, c, listSpec{Backend: "mem", Volumes: n, Dir: dir}); err != nil {
			return nil, err
		}
	}
	pool := filepath.Join(dir, "list-pool")
	if err := mountMemory(pool); err != nil {
		return nil, err
	}
	err := t.list(ctx, c, listSpec{Backend: "loopfile", Volumes: min(pooled, c.volumes[0]), Dir: dir, Pool: pool})
	return t, errors.Join(err, unmountMemory(pool))
}

// pooled is how many volumes the pool of loop files has, which is in memory: what
// is read again is in the page cache anyway. To make a volume it looks at all
// others, and ten thousand would take longer than the rest of the benchmark.
const pooled = 1000

// list adds the rows of one backend.
func (t *table) list(ctx context.Context, c config, spec listSpec) (err error) {
	server, err := startList(ctx, spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	for _, entries := range []int32{0, 100} {
		r, err := listRow(ctx, c, spec, server, entries)
		if err != nil {
			return err
		}
		t.rows = append(t.rows, r)
	}
	return nil
}

// listGoals are those of ten thousand volumes.
var listGoals = map[int32]goal{0: atMost(nanoseconds, 20e6, -1), 100: atMost(nanoseconds, 30e6, -1)}

func listRow(ctx context.Context, c config, spec listSpec, server *served, entries int32) (*row, error) {
	pages, err := everyPage(ctx, server, spec.Volumes, entries)
	if err != nil {
		return nil, err
	}
	spec.Bare, spec.Entries = true, entries
	bare, err := startList(ctx, spec)
	if err != nil {
		return nil, err
	}
	r := &row{
		item:   fmt.Sprintf("%s, %d volumes, %s", spec.Backend, spec.Volumes, pagesText(len(pages))),
		csikit: &figure{}, others: []*figure{{name: "bare, pages ready made"}},
	}
	if spec.Volumes == 10_000 && spec.Backend == "mem" {
		r.goal = listGoals[entries]
	}
	if spec.Backend == "mem" && entries == 0 {
		r.note = "bare's time is protobuf on both sides (each entry has a context and a topology, two maps) and the socket: csikit cannot be below it"
	}
	clear(pages) // not to be looked at by the collector in each round
	err = interleave(ctx, c.rounds,
		r.csikit.listing(ctx, c, server, spec.Volumes, entries), r.others[0].listing(ctx, c, bare, spec.Volumes, entries))
	return r, errors.Join(err, bare.stop())
}

func pagesText(n int) string {
	if n == 1 {
		return "1 page"
	}
	return fmt.Sprintf("%d pages", n)
}

// listing is a task that walks through all pages, and notes the median.
func (f *figure) listing(ctx context.Context, c config, server *served, want int, entries int32) task {
	return f.pairs(c.slice, paired{op: func() error {
		got := 0
		err := walk(ctx, server, entries, func(_ string, r *csi.ListVolumesResponse) { got += len(r.GetEntries()) })
		if err == nil && got != want {
			err = fmt.Errorf("a list of %d volumes, there are %d", got, want)
		}
		return err
	}})
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
func everyPage(ctx context.Context, server *served, want int, entries int32) (idlePages, error) {
	pages := make(idlePages)
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
