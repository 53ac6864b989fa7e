// Command bench measures csikit beside what a driver would otherwise do, in one
// run: the interceptors, whole RPCs and lists beside bare gRPC, operations and their
// locks beside those that drivers have, a rush of publishes beside a lock for each
// volume, mounts and stages beside k8s.io/mount-utils and the bare system
// calls, and drivers, each a process of its own, beside a server that does nothing.
//
//	go run ./internal/bench
//
// Compare within one run, not runs of two machines or days: what a row compares
// is measured in turns. Figures are medians, in parentheses the least and the
// greatest of the rounds; the ratio is to the first thing beside csikit. "bare" is
// grpc-go as it comes.
//
// It needs Linux and root, runs in a mount namespace of its own, and ends with
// an error when anything is left behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

type config struct {
	rounds       int           // of what is measured in this process
	slice        time.Duration // of a round, for one thing
	volumes      []int         // to be listed
	mounts       []int         // that a node has
	publishes    int           // on the node that has most, and of a rush
	ids          int           // that come and go
	driverRounds int           // each starts every driver once
	duration     time.Duration // of each of a driver round's two lifecycle measurements
	size         int64         // of a volume
	dir          string
}

func main() {
	if spec := os.Getenv(envList); spec != "" {
		os.Exit(serveList(spec))
	}
	c := config{slice: 200 * time.Millisecond, volumes: []int{10_000, 100_000}, mounts: []int{10, 1000, 10_000}, publishes: 1000, ids: 1_000_000}
	flag.IntVar(&c.rounds, "rounds", 7, "rounds of what is measured in one process")
	flag.IntVar(&c.driverRounds, "driver-rounds", 5, "rounds of drivers; each starts every driver once")
	flag.DurationVar(&c.duration, "duration", time.Second, "length of each of a driver round's two lifecycle measurements")
	flag.Int64Var(&c.size, "size", 1<<30, "bytes of a volume")
	flag.StringVar(&c.dir, "dir", os.TempDir(), "where pools and volumes are; a disk, not memory")
	quick := flag.Bool("quick", false, "every row, and no figure to rely on: a test of the benchmark")
	flag.Parse()
	if *quick {
		c = c.quick()
	}
	os.Exit(inNamespace(func() int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := run(ctx, os.Stdout, c); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		return 0
	}))
}

// quick is as short as it can be.
func (c config) quick() config {
	c.rounds, c.driverRounds = 1, 1
	c.slice, c.duration = time.Millisecond, 10*time.Millisecond
	c.size, c.volumes, c.mounts, c.publishes = 512<<20, []int{300}, []int{3, 10}, 5
	c.ids = 1000
	return c
}

// run measures in a directory of its own, and takes it back.
func run(ctx context.Context, w io.Writer, c config) (err error) {
	dir, err := os.MkdirTemp(c.dir, "csikit-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if e := cleanUp(dir); err == nil {
			err = e
		}
	}()
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%s/%s, %d CPUs, %s; %d rounds of %v; drivers: %d rounds of %v, volumes of %d MiB; %s\n\n", runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), runtime.Version(), c.rounds, c.slice, c.driverRounds, c.duration, c.size>>20, diskOf(c.dir)); err != nil {
		return err
	}
	start := time.Now()
	for _, part := range []func() (*table, error){
		func() (*table, error) { return chains(ctx, c, root, dir) },
		func() (*table, error) { return lockTable(ctx, c, root, dir) },
		func() (*table, error) { return operations(ctx, c) },
		func() (*table, error) { return rpcs(ctx, c, dir) },
		func() (*table, error) { return rushes(ctx, c, dir) },
		func() (*table, error) { return lists(ctx, c, dir) },
		func() (*table, error) { return mounts(ctx, c, dir) },
		func() (*table, error) { return stages(ctx, c, dir) },
		func() (*table, error) { return loops(ctx, c, dir) },
		func() (*table, error) { return publishes(ctx, c, dir) },
		func() (*table, error) { return measureDrivers(ctx, c, root, dir) },
	} {
		t, err := part()
		if err != nil {
			return err
		}
		if err := t.print(w); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w, "took %.0f s, builds included\n", time.Since(start).Seconds())
	return err
}
