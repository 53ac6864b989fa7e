package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"

	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/cmd/csikit/internal/walk"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/driverproc"
	"github.com/csikit/csikit/mounter"
)

// driverCommand is this program as the driver, a process of its own so that it
// can be killed.
const driverCommand = "demo-driver"

// driver is the driver as its CO sees it: a process and a socket.
type driver struct{ driverproc.Process }

func newDriver(w workspace) *driver {
	argv := []string{"/proc/self/exe", driverCommand, "-dir", w.dir}
	if w.rootless {
		argv = append(argv, "-rootless")
	}
	return &driver{driverproc.Process{Argv: argv, Socket: w.socket(), Log: w.log()}}
}

// showLog prints the end of the driver's log.
func (d *driver) showLog(p walk.Printer) {
	p.Section("the driver's last words")
	p.See("%s", d.Tail(20))
}

// serveDriver is the driver process: what a driver's main does.
func serveDriver(ctx context.Context, args []string) error {
	fl := flag.NewFlagSet(driverCommand, flag.ContinueOnError)
	dir := fl.String("dir", "", "workspace")
	rootless := fl.Bool("rootless", false, "directories instead of disks")
	if err := fl.Parse(args); err != nil {
		return err
	}
	w := workspace{dir: *dir, rootless: *rootless}
	cfg, closeBackend, err := driverConfig(w)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	// The workspace is temporary anyway, and may lie on a container's own root.
	engine, err := mounter.New(cfg.Node, &mounter.Options{
		StateDir: w.state(), AllowVolatileState: true, Logger: log, FSTypes: cfg.Traits.FSTypes,
		NoDevices: !cfg.Traits.Devices,
	})
	if err != nil {
		return errors.Join(err, closeBackend())
	}
	d, err := csidriver.New(cfg, &csidriver.Options{NodeID: "demo", Engine: engine, Logger: log})
	if err != nil {
		return errors.Join(err, engine.Close(), closeBackend())
	}
	return errors.Join(d.Run(ctx, "unix://"+w.socket()), closeBackend())
}

// driverConfig is the loop-file driver, or without root the directory driver.
func driverConfig(w workspace) (cfg csidriver.Config, closeBackend func() error, err error) {
	if w.rootless {
		root, err := os.OpenRoot(w.pool())
		if err != nil {
			return cfg, nil, err
		}
		backend := &directory{root: root}
		return csidriver.Config{
			Name: "directory.demo.csikit.dev", Version: "0.0.0", Traits: directoryTraits, Controller: backend, Node: backend,
		}, root.Close, nil
	}
	backend, err := loopfile.New(loopfile.Options{Pool: w.pool(), Node: "demo", Init: true, AllowRootFS: true, Reserve: -1,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return cfg, nil, err
	}
	return csidriver.Config{
		Name: "loopfile.demo.csikit.dev", Version: "0.0.0", Traits: backend.Traits(), Controller: backend, Node: backend,
	}, backend.Close, nil
}
