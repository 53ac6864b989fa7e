// Command bench measures what a driver of csikit costs beside a gRPC server that
// serves the same CSI services and does nothing: size of the binary, time from
// start to the first successful Probe, memory at rest, and full lifecycles of a
// volume a second (create, stage, publish, stats, unpublish, unstage, delete).
//
//	go run ./internal/bench
//
// All drivers are measured in one run, in turns, each as a process of its own
// behind a unix socket: compare the columns of one table, not tables of two
// machines or days. The first number is the median of the rounds, the ones in
// parentheses the least and the greatest, the last the ratio to the bare server.
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
	"syscall"
	"time"
)

type config struct {
	rounds   int
	duration time.Duration
	size     int64
	dir      string
}

func main() {
	var c config
	flag.IntVar(&c.rounds, "rounds", 5, "rounds; each starts every driver once")
	flag.DurationVar(&c.duration, "duration", time.Second, "length of each of a round's two lifecycle measurements")
	flag.Int64Var(&c.size, "size", 1<<30, "bytes of a volume")
	flag.StringVar(&c.dir, "dir", os.TempDir(), "where pools and volumes are; a disk, not memory")
	flag.Parse()
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
	start := time.Now()
	drivers, err := build(ctx, dir)
	if err != nil {
		return err
	}
	built := time.Since(start)
	for i := range c.rounds {
		// Each round begins with another driver, so that what the machine does
		// besides does not always meet the same one.
		for j := range drivers {
			d := drivers[(i+j)%len(drivers)]
			if err := measure(ctx, c, dir, d); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
		}
	}
	measured := time.Since(start) - built
	if err := report(w, c, drivers); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "built in %.1f s, measured in %.1f s\n", built.Seconds(), measured.Seconds())
	return err
}
