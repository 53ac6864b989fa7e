package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// driver is one column of the table.
type driver struct {
	name   string
	pkg    string
	args   func(dir string) []string
	setUp  func(dir string) []string // of a first run that ends by itself; nil: none
	params map[string]string         // of CreateVolume

	binary string
	size   float64 // MB
	start  series  // ns
	rss    series  // MiB
	rate   [2]series
	steps  [len(stepNames)]series // ns, at one call at a time
}

// concurrency of the two lifecycle measurements, and the goal of each.
var (
	concurrency = [2]int{1, 16}
	leastRate   = [2]float64{250, 600}
)

func all() []*driver {
	data := func(dir string) string { return filepath.Join(dir, "data") }
	common := func(dir string) []string {
		return []string{"-node-id=bench", "-state-dir=" + filepath.Join(dir, "state")}
	}
	return []*driver{
		{name: "bare gRPC", pkg: "./internal/bench/bare", args: func(string) []string { return nil }},
		{name: "minimal", pkg: "./examples/minimal", args: func(dir string) []string {
			return append(common(dir), "-root="+data(dir))
		}},
		{name: "loopfile", pkg: "./examples/loopfile", params: map[string]string{"type": "thin"}, args: func(dir string) []string {
			return append(common(dir), "-pool="+data(dir))
		}, setUp: func(dir string) []string { return []string{"-init", "-pool=" + data(dir)} }},
	}
}

// moduleRoot is where go.mod lies.
func moduleRoot(ctx context.Context) (string, error) {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	return filepath.Dir(strings.TrimSpace(string(mod))), err
}

// build builds all drivers as they would be shipped.
func build(ctx context.Context, root, dir string) ([]*driver, error) {
	drivers := all()
	for _, d := range drivers {
		d.binary = filepath.Join(dir, "bin-"+filepath.Base(d.pkg))
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags=grpcnotrace", "-ldflags=-s -w", "-o", d.binary, d.pkg)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", d.pkg, err, out)
		}
		fi, err := os.Stat(d.binary)
		if err != nil {
			return nil, err
		}
		d.size = float64(fi.Size()) / 1e6
	}
	return drivers, nil
}

// measureDrivers starts each driver once a round.
func measureDrivers(ctx context.Context, c config, root, dir string) (*table, error) {
	drivers, err := build(ctx, root, dir)
	if err != nil {
		return nil, err
	}
	var tasks []task
	for _, d := range drivers {
		tasks = append(tasks, func(ctx context.Context) error {
			if err := measure(ctx, c, dir, d); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			return nil
		})
	}
	if err := interleave(ctx, c.driverRounds, tasks...); err != nil {
		return nil, err
	}
	return driverTable(drivers), nil
}

// measure is one driver's part of a round.
func measure(ctx context.Context, c config, base string, d *driver) (err error) {
	dir, err := os.MkdirTemp(base, "run-")
	if err != nil {
		return err
	}
	for _, sub := range []string{"data", "state", "volumes"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	if d.setUp != nil {
		if out, err := exec.CommandContext(ctx, d.binary, d.setUp(dir)...).CombinedOutput(); err != nil {
			return fmt.Errorf("set up: %w\n%s", err, out)
		}
	}
	p, err := startDriver(ctx, d, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	d.start.add(float64(p.ready))
	// At rest: what the start has left to do is done, and the memory is as it
	// will be on most nodes most of the time.
	time.Sleep(300 * time.Millisecond)
	rss, err := p.rss()
	if err != nil {
		return err
	}
	d.rss.add(rss)
	l, err := newLoad(ctx, p.conn, c, d.params, filepath.Join(dir, "volumes"))
	if err != nil {
		return err
	}
	if _, err := l.run(ctx, 100*time.Millisecond, 1); err != nil { // caches and code paths warm up
		return err
	}
	for i, n := range concurrency {
		l.reset()
		rate, err := l.run(ctx, c.duration, n)
		if err != nil {
			return err
		}
		d.rate[i].add(rate)
		if n == 1 {
			for s, took := range l.medians() {
				d.steps[s].add(took)
			}
		}
	}
	return nil
}

// child is a driver that runs.
type child struct {
	cmd   *exec.Cmd
	log   string
	conn  *grpc.ClientConn
	ready time.Duration // from start to the first Probe that says so
}

func startDriver(ctx context.Context, d *driver, dir string) (*child, error) {
	socket := filepath.Join(dir, "csi.sock")
	p := &child{log: filepath.Join(dir, "log")}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	if p.conn, err = dial(socket); err != nil {
		return nil, err
	}
	// Not ended by ctx: stop does that in order.
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), d.binary, append([]string{"-endpoint=unix://" + socket}, d.args(dir)...)...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = log, log, childAttributes()
	begin := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, p.conn.Close())
	}
	if err := awaitReady(ctx, p.conn); err != nil {
		return nil, errors.Join(err, p.stop(), p.said())
	}
	p.ready = time.Since(begin)
	return p, nil
}

// dial connects as soon as the socket is there, without gRPC's back-off, which
// would be what is measured.
func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			for {
				conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
				if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
					return conn, err
				}
				time.Sleep(100 * time.Microsecond)
			}
		}))
}

// awaitReady waits for the first Probe that says so.
func awaitReady(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		r, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return fmt.Errorf("first Probe: %w", err)
		}
		if r.GetReady() == nil || r.GetReady().GetValue() {
			return nil
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// rss is the resident memory in MiB.
func (p *child) rss() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, errors.New("no VmRSS in /proc/PID/status")
	}
	kib, err := strconv.ParseFloat(fields[0], 64)
	return kib / 1024, err
}

// stop asks the driver to drain, and waits for it.
func (p *child) stop() error {
	err := p.conn.Close()
	if e := p.cmd.Process.Signal(syscall.SIGTERM); e != nil {
		err = errors.Join(err, e)
	}
	late := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	if e := p.cmd.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("driver: %w", e), p.said())
	}
	return err
}

// said is the end of the driver's log, for an error.
func (p *child) said() error {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	return fmt.Errorf("its log ends with:\n%s", b[max(0, len(b)-2000):])
}
