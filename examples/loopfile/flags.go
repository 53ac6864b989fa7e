package main

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/csidriver"
)

// settings is what the command line says.
type settings struct {
	loopfile.Options
	endpoint, stateDir string
	sharedDirs         []string
	registry           string // kubelet's, to register in
	registered, health string
	serve              csidriver.Services // 0: both halves
	makePool           bool
}

func parse(args []string) (*settings, error) {
	s := &settings{Options: loopfile.Options{Logger: slog.Default()}}
	fs := flag.NewFlagSet("loopfile", flag.ExitOnError)
	fs.StringVar(&s.endpoint, "endpoint", "", "unix:///path (default $CSI_ENDPOINT)")
	fs.StringVar(&s.stateDir, "state-dir", "/var/lib/csi-loopfile", "where the node keeps what is mounted; on the host's own disk")
	kubelet := fs.String("kubelet-dir", "", "kubelet's directory as this container sees it: its mounts must reach the host (default: not checked)")
	register := fs.Bool("register", false, "register with kubelet in -kubelet-dir, without a registrar")
	fs.StringVar(&s.registered, "kubelet-endpoint", "", "the driver's socket as kubelet sees it (default: as it is served)")
	fs.StringVar(&s.health, "health", "", "host:port for GET /healthz and /readyz (default: none)")
	mode := fs.String("mode", "all", "controller, node or all")
	fs.BoolVar(&s.makePool, "init", false, "make -pool a pool, and exit")
	fs.BoolVar(&s.Init, "init-pool", false, "make -pool a pool if it is empty, and serve it: to try it out, never in a service")
	fs.StringVar(&s.Node, "node-id", "", "name of this node (default: host name)")
	fs.StringVar(&s.Pool, "pool", "/var/lib/csi-loopfile-pool", "directory of the images")
	fs.StringVar(&s.Name, "pool-name", "", "name that the pool must have (default: the one it has; with -init: a random one)")
	fs.BoolVar(&s.Thin, "thin", false, "make thin volumes unless the parameter \"type\" says otherwise")
	fs.BoolVar(&s.AllowRootFS, "allow-root-fs", false, "permit a pool on a container's root or in memory: to try it out")
	fs.Int64Var(&s.EphemeralMax, "ephemeral-max", 0, "bytes that an inline volume of a pod may have (default: pods may have none)")
	fs.StringVar(&s.Cgroup, "io-cgroup", "", "cgroup v2 directory whose processes volumes' I/O limits hold for, as /sys/fs/cgroup/kubepods.slice (default: volumes have no limits)")
	fs.DurationVar(&s.FreezeLimit, "freeze-limit", 0, "how long a volume in use may be kept from writing for a snapshot (default 10s)")
	fs.BoolVar(&s.Attach, "attach", false, "ask for volumes to be attached: for tests of what calls a driver")
	_ = fs.Parse(args) // ExitOnError
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected arguments %q", fs.Args())
	}
	if s.Node == "" {
		s.Node, _ = os.Hostname() // an empty name is refused by loopfile.New
	}
	if *kubelet != "" {
		s.sharedDirs = []string{*kubelet}
	}
	switch {
	case *register && *kubelet == "":
		return nil, fmt.Errorf("-register needs -kubelet-dir")
	case *register && *mode != "controller":
		s.registry = filepath.Join(*kubelet, "plugins_registry")
	}
	switch *mode {
	case "all":
	case "controller":
		s.serve, s.Half = csidriver.ServeController, loopfile.ControllerHalf
	case "node":
		s.serve, s.Half = csidriver.ServeNode, loopfile.NodeHalf
	default:
		return nil, fmt.Errorf("-mode %q: want controller, node or all", *mode)
	}
	return s, nil
}
