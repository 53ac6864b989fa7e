package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/csidriver"
)

// driverCommand is this program as the driver, a process of its own so that it
// can be killed.
const driverCommand = "demo-driver"

// driverProcess is the driver as its CO sees it: a process and a socket.
type driverProcess struct {
	w    workspace
	cmd  *exec.Cmd
	conn *grpc.ClientConn
}

func (d *driverProcess) controller() csi.ControllerClient { return csi.NewControllerClient(d.conn) }
func (d *driverProcess) node() csi.NodeClient             { return csi.NewNodeClient(d.conn) }
func (d *driverProcess) pid() int                         { return d.cmd.Process.Pid }

// start runs the driver and waits until it says that it is ready.
func (d *driverProcess) start(ctx context.Context) error {
	logs, err := os.OpenFile(d.w.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer logs.Close()
	args := []string{driverCommand, "-dir", d.w.dir}
	if d.w.rootless {
		args = append(args, "-rootless")
	}
	//nolint:noctx // the driver outlives ctx by its orderly stop
	d.cmd = exec.Command("/proc/self/exe", args...)
	d.cmd.Stdout, d.cmd.Stderr = logs, logs
	d.cmd.SysProcAttr = childAttr()
	if err := d.cmd.Start(); err != nil {
		return err
	}
	if d.conn == nil {
		d.conn, err = grpc.NewClient("unix://"+d.w.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
		if err != nil {
			return err
		}
	}
	return d.waitReady(ctx)
}

func (d *driverProcess) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	identity := csi.NewIdentityClient(d.conn)
	for {
		resp, err := identity.Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
		if err == nil && resp.GetReady().GetValue() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the driver is not ready: %w", errors.Join(err, ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// kill ends the driver without warning.
func (d *driverProcess) kill() (pid int, err error) {
	pid = d.pid()
	if err := d.cmd.Process.Kill(); err != nil {
		return pid, err
	}
	_ = d.cmd.Wait() // says only that it was killed
	return pid, nil
}

// stop ends the driver in order.
func (d *driverProcess) stop(ctx context.Context) error {
	if d.cmd == nil || d.cmd.ProcessState != nil {
		return nil
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- d.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(40 * time.Second):
	case <-ctx.Done():
	}
	return errors.Join(fmt.Errorf("the driver, pid %d, did not stop", d.pid()), d.cmd.Process.Kill(), <-done)
}

// showLog prints the end of the driver's log.
func (d *driverProcess) showLog(p *printer) error {
	b, err := os.ReadFile(d.w.log())
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	p.section("the driver's last words")
	for _, l := range lines[max(0, len(lines)-20):] {
		p.see("%s", l)
	}
	return nil
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
	driver, err := csidriver.New(cfg, &csidriver.Options{NodeID: "demo", StateDir: w.state(), Logger: slog.Default()})
	if err != nil {
		return err
	}
	return driver.Run(ctx, "unix://"+w.socket())
}
