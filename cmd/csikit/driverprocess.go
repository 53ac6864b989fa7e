package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/driverproc"
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

func (d *driver) controller() csi.ControllerClient { return csi.NewControllerClient(d.Conn()) }
func (d *driver) node() csi.NodeClient             { return csi.NewNodeClient(d.Conn()) }

// showLog prints the end of the driver's log.
func (d *driver) showLog(p *printer) {
	p.section("the driver's last words")
	p.see("%s", d.Tail(20))
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
	cfg, err := driverConfig(w)
	if err != nil {
		return err
	}
	d, err := csidriver.New(cfg, &csidriver.Options{
		NodeID: "demo", StateDir: w.state(), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	return d.Run(ctx, "unix://"+w.socket())
}
