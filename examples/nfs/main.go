// Command nfs is a CSI driver whose volumes are directories of NFS shares. See
// README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/csikit/csikit/backends/nfs"
	"github.com/csikit/csikit/csidriver"
)

func main() {
	if nfs.IsWorker() { // a process of the driver's own, for what may hang
		os.Exit(nfs.RunWorker())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nfs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	b, err := nfs.New(s.Options)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	// What the driver advertises follows from what b implements.
	d, err := csidriver.New(csidriver.Config{
		Name: s.driver, Traits: b.Traits(), Controller: b, Node: b, Serve: s.serve,
	}, &csidriver.Options{
		NodeID: s.node, StateDir: s.stateDir, SharedDirs: s.sharedDirs,
		KubeletRegistry: s.registry, KubeletEndpoint: s.registered, HealthAddress: s.health,
	})
	if err != nil {
		return err
	}
	return d.Run(ctx, s.endpoint)
}
