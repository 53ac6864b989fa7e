// Command loopfile is a CSI driver whose volumes are image files in a directory
// of this node. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
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
	o := loopfile.Options{Logger: slog.Default()}
	fs := flag.NewFlagSet("loopfile", flag.ExitOnError)
	endpoint := fs.String("endpoint", "", "unix:///path (default $CSI_ENDPOINT)")
	state := fs.String("state-dir", "/var/lib/csi-loopfile", "where the node keeps what is mounted; on the host's own disk")
	kubelet := fs.String("kubelet-dir", "", "kubelet's directory as this container sees it: its mounts must reach the host (default: not checked)")
	mode := fs.String("mode", "all", "controller, node or all")
	initPool := fs.Bool("init", false, "make -pool a pool, and exit")
	fs.BoolVar(&o.Init, "init-pool", false, "make -pool a pool if it is empty, and serve it: to try it out, never in a service")
	fs.StringVar(&o.Node, "node-id", "", "name of this node (default: host name)")
	fs.StringVar(&o.Pool, "pool", "/var/lib/csi-loopfile-pool", "directory of the images")
	fs.StringVar(&o.Name, "pool-name", "", "name that the pool must have (default: the one it has; with -init: a random one)")
	fs.BoolVar(&o.Thin, "thin", false, "make thin volumes unless the parameter \"type\" says otherwise")
	fs.BoolVar(&o.AllowRootFS, "allow-root-fs", false, "permit a pool on a container's root or in memory: to try it out")
	fs.Int64Var(&o.EphemeralMax, "ephemeral-max", 0, "bytes that an inline volume of a pod may have (default: pods may have none)")
	fs.DurationVar(&o.FreezeLimit, "freeze-limit", 0, "how long a volume in use may be kept from writing for a snapshot (default 10s)")
	fs.BoolVar(&o.Attach, "attach", false, "ask for volumes to be attached: for tests of what calls a driver")
	_ = fs.Parse(args) // ExitOnError
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected arguments %q", fs.Args())
	}

	if *initPool {
		info, err := loopfile.InitPool(o.Pool, &loopfile.PoolOptions{Name: o.Name, AllowRootFS: o.AllowRootFS})
		if err == nil {
			fmt.Printf("pool %s in %s, volume IDs are %s.*\n", info.ID, o.Pool, info.Name)
		}
		return err
	}
	if o.Node == "" {
		o.Node, _ = os.Hostname() // an empty name is refused below
	}
	var serve csidriver.Services // 0: both
	switch *mode {
	case "all":
	case "controller":
		serve, o.Half = csidriver.ServeController, loopfile.ControllerHalf
	case "node":
		serve, o.Half = csidriver.ServeNode, loopfile.NodeHalf
	default:
		return fmt.Errorf("-mode %q: want controller, node or all", *mode)
	}
	opts := csidriver.Options{NodeID: o.Node, StateDir: *state}
	if *kubelet != "" {
		opts.SharedDirs = []string{*kubelet}
	}
	b, err := loopfile.New(o)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	d, err := csidriver.New(csidriver.Config{
		Name: "loopfile.csikit.dev", Traits: b.Traits(), Controller: b, Node: b, Serve: serve,
	}, &opts)
	if err != nil {
		return err
	}
	return d.Run(ctx, *endpoint)
}
