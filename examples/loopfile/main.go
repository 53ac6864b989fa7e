// Command loopfile is a CSI driver whose volumes are image files in a directory
// of this node. See README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/csidriver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "loopfile:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	if s.makePool {
		info, err := loopfile.InitPool(s.Pool, &loopfile.PoolOptions{Name: s.Name, AllowRootFS: s.AllowRootFS})
		if err == nil {
			fmt.Printf("pool %s in %s, volume IDs are %s.*\n", info.ID, s.Pool, info.Name)
		}
		return err
	}
	b, err := loopfile.New(s.Options)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	// What the driver advertises follows from what b implements.
	d, err := csidriver.New(csidriver.Config{
		Name: "loopfile.csikit.dev", Traits: b.Traits(), Controller: b, Node: b, Serve: s.serve,
	}, &csidriver.Options{
		NodeID: s.Node, StateDir: s.stateDir, SharedDirs: s.sharedDirs,
		KubeletRegistry: s.registry, KubeletEndpoint: s.registered, HealthAddress: s.health,
	})
	if err != nil {
		return err
	}
	return d.Run(ctx, s.endpoint)
}
