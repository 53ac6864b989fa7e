package walk

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/mounter/mountertest"
)

// disk is a mounted file system of its own.
func disk(t *testing.T, fsType string) string {
	t.Helper()
	testenv.Root(t)
	testenv.Tool(t, "mkfs."+fsType)
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(8 << 30); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs."+fsType, "-q", f.Name()).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	loop, err := blockdev.AttachLoop(t.Context(), f, blockdev.AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		if _, err := mnt.Unmount(dir); err != nil {
			t.Error(err)
		}
		if err := blockdev.DetachLoop(context.WithoutCancel(t.Context()), loop.Path, loop.Dev, loop.Ino); err != nil {
			t.Error(err)
		}
	})
	if err := mnt.Mount(loop.Path, fsType, dir, mnt.Options{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// loopBackend is a pool in a directory.
func loopBackend(t *testing.T, dir string) *loopfile.Backend {
	t.Helper()
	b, err := loopfile.New(loopfile.Options{
		Pool: dir, Node: "node-1", Init: true, AllowRootFS: true, Thin: true, Reserve: -1, Overcommit: 100,
		Attach: true, EphemeralMax: 1 << 30, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// half is what a driver is made of.
type half interface {
	backends.Controller
	backends.Node
	Traits() backends.Traits
}

// serve runs a driver and gives a client of it.
func serve(t *testing.T, b half, e mounter.Options, o csidriver.Options) *grpc.ClientConn {
	t.Helper()
	traits := b.Traits()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	e.StateDir, e.AllowVolatileState, e.FSTypes, e.NoDevices = t.TempDir(), true, traits.FSTypes, !traits.Devices
	e.Logger = log
	engine, err := mounter.New(b, &e)
	if err != nil {
		t.Fatal(err)
	}
	o.NodeID, o.Engine, o.Logger = "node-1", engine, log
	d, err := csidriver.New(csidriver.Config{Name: "test.csikit.dev", Version: "1", Traits: traits, Controller: b, Node: b}, &o)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "csikit-") //nolint:usetesting // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- d.Run(ctx, "unix://"+dir+"/s") }()
	conn, err := csiclient.Dial("unix://" + dir + "/s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := csiclient.WaitReady(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

// walkDriver walks a driver of this process.
func walkDriver(t *testing.T, conn *grpc.ClientConn, change func(*Options)) (out string, err error) {
	t.Helper()
	var b bytes.Buffer
	o := Options{Controller: conn, Out: &b, Name: "vol", Dir: t.TempDir(), Size: 320 << 20, SameHost: true, pause: time.Millisecond}
	if change != nil {
		change(&o)
	}
	err = Run(t.Context(), o)
	t.Logf("%s", b.String())
	if mounts, merr := MountsBelow(o.Dir); merr != nil || len(mounts) > 0 {
		t.Errorf("mounts left: %v, %v", mounts, merr)
	}
	if left, derr := os.ReadDir(o.Dir); derr != nil || len(left) > 0 {
		t.Errorf("left below the directory: %v, %v", left, derr)
	}
	return b.String(), err
}

// wantEmpty: nothing is left in the pool.
func wantEmpty(t *testing.T, pool string) {
	t.Helper()
	for _, d := range []string{"v", "s", "g", ".tmp"} {
		if left, _ := os.ReadDir(filepath.Join(pool, d)); len(left) > 0 {
			t.Errorf("left in the pool: %s/%v", d, left)
		}
	}
}

// TestLoopfile walks all that there is, on pools that share blocks.
func TestLoopfile(t *testing.T) {
	for _, pool := range []string{"xfs", "btrfs"} {
		for _, access := range []string{"mount", "block"} {
			t.Run(pool+" "+access, func(t *testing.T) {
				testenv.Root(t)
				testenv.Tool(t, "mkfs.xfs", "xfs_growfs")
				dir := disk(t, pool)
				conn := serve(t, loopBackend(t, dir), mounter.Options{}, csidriver.Options{})
				out, err := walkDriver(t, conn, func(o *Options) {
					o.Block, o.FSType, o.Inline = access == "block", "xfs", map[string]string{"size": "320Mi"}
				})
				if err != nil {
					t.Error(err)
				}
				for _, want := range []string{
					"life        passed\n", "snapshot    passed\n", "clone       passed\n", "group       passed\n", "metadata    passed\n",
					"modify      not advertised: MODIFY_VOLUME", "mountgroup  not advertised: VOLUME_MOUNT_GROUP",
					"restored's pod-1 reads the same", "clone's pod-1 reads the same", "in the first, ", "every byte of 320 MiB compared",
				} {
					if !strings.Contains(out, want) {
						t.Errorf("the walk does not show %q", want)
					}
				}
				wantEmpty(t, dir)
			})
		}
	}
}

// TestMemDirectories: volumes that are directories, with every ability but what
// needs a disk.
func TestMemDirectories(t *testing.T) {
	testenv.Root(t)
	store := mem.NewStore(&mem.StoreOptions{Dir: t.TempDir()})
	b, err := mem.New(&mem.Options{Store: store, Node: "node-1"})
	if err != nil {
		t.Fatal(err)
	}
	out, err := walkDriver(t, serve(t, b, mounter.Options{}, csidriver.Options{}), func(o *Options) {
		o.Inline, o.Mutable, o.still = map[string]string{}, map[string]string{"tier": "fast"}, true
	})
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"life        passed\n", "mountgroup  passed\n", "modify      passed\n", "snapshot    passed\n", "clone       passed\n", "group       passed\n",
		"metadata    passed by its answers; no data was looked at\n", "inline      passed\n", "no file system of its own", "group 61617",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the walk does not show %q", want)
		}
	}
	if !store.Empty() {
		t.Error("something is left")
	}
}

// TestMemDevices: devices that do not exist, in a kernel in memory. It does not copy
// file systems, so that raw block volumes are walked alone.
func TestMemDevices(t *testing.T) {
	store := mem.NewStore(&mem.StoreOptions{Devices: true})
	// What that kernel has as a disk does not grow by itself.
	b, err := mem.New(&mem.Options{Store: store, Node: "node-1", Without: []string{"Expander", "NodeExpander"}})
	if err != nil {
		t.Fatal(err)
	}
	conn := serve(t, b, mounter.Options{Kernel: mountertest.NewKernel()}, csidriver.Options{})
	out, err := walkDriver(t, conn, func(o *Options) {
		o.Block, o.NoData, o.Mutable = true, true, map[string]string{"tier": "fast"}
	})
	if err != nil {
		t.Error(err)
	}
	if n := strings.Count(out, "passed by its answers"); n != 6 || strings.Contains(out, "passed\n") {
		t.Errorf("%d subjects passed by their answers", n)
	}
	if !store.Empty() {
		t.Error("something is left")
	}
}
