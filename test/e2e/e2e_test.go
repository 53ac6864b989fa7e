package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/internal/driverproc"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

func TestMain(m *testing.M) {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "mkfs.") {
		os.Exit(killedMkfs())
	}
	testenv.Main(m)
}

// driver is examples/loopfile as a process, with a pool and paths of its own.
type driver struct {
	driverproc.Process
	t   testing.TB
	dir string
}

// build makes a binary of a package once for each test that asks.
func build(t testing.TB, pkg string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), filepath.Base(pkg))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "grpcnotrace", "-o", bin, pkg).CombinedOutput()
	if err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return bin
}

// newDriver starts examples/loopfile on a fresh pool, with env besides its own.
func newDriver(t testing.TB, env ...string) *driver {
	t.Helper()
	testenv.Root(t)
	testenv.Tool(t, "mkfs.ext4", "mkfs.xfs")
	bin := build(t, "github.com/csikit/csikit/examples/loopfile")
	d := &driver{t: t, dir: t.TempDir()}
	if out, err := exec.CommandContext(t.Context(), bin, "-init", "-allow-root-fs", "-pool", d.path("pool")).CombinedOutput(); err != nil {
		t.Fatalf("init pool: %v\n%s", err, out)
	}
	d.Process = driverproc.Process{
		Argv: []string{bin, "-endpoint", "unix://" + d.path("csi.sock"), "-node-id", "node-1",
			"-state-dir", d.path("state"), "-pool", d.path("pool"), "-allow-root-fs"},
		Env: env, Socket: d.path("csi.sock"), Log: d.path("driver.log"),
	}
	d.start()
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("the driver's end: %v", err)
		}
		d.nothingLeft()
		if t.Failed() {
			t.Logf("driver log:\n%s", d.Tail(40))
		}
	})
	return d
}

func (d *driver) start() {
	d.t.Helper()
	if err := d.Start(context.Background()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *driver) path(name string) string          { return filepath.Join(d.dir, name) }
func (d *driver) controller() csi.ControllerClient { return csi.NewControllerClient(d.Conn()) }
func (d *driver) node() csi.NodeClient             { return csi.NewNodeClient(d.Conn()) }

// nothingLeft fails the test for a mount, or a loop device, of this driver.
func (d *driver) nothingLeft() {
	d.t.Helper()
	all, err := mnt.List()
	if err != nil {
		d.t.Error(err)
	}
	for _, m := range all {
		if rel, err := filepath.Rel(d.dir, m.Point); err == nil && filepath.IsLocal(rel) {
			d.t.Errorf("mount left: %s on %s", m.Source, m.Point)
			_, _ = mnt.Unwind(m.Point) // so that the directory can be removed
		}
	}
	// A program that looks at all loop devices has the kernel wait with the end of one.
	left := d.loops()
	for end := time.Now().Add(time.Minute); len(left) > 0 && time.Now().Before(end); left = d.loops() {
		time.Sleep(10 * time.Millisecond)
	}
	for _, f := range left {
		d.t.Errorf("loop device left: %s", f)
	}
}

// loops are the loop devices on files of this driver.
func (d *driver) loops() (left []string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), d.dir+"/") {
			left = append(left, f+" on "+string(b))
		}
	}
	return left
}

const size = 320 << 20 // bytes: what mkfs.xfs asks for at least, and a little

func capability(fsType string, mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	c := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType}},
	}
	if fsType == "block" {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	}
	return c
}

// volume is one volume and where it is on this node.
type volume struct {
	d               *driver
	name, id        string
	context         map[string]string
	cap             *csi.VolumeCapability
	staging, target string
}

// newVolume names a volume; nothing is made yet.
func (d *driver) newVolume(name, fsType string) *volume {
	return &volume{d: d, name: name, cap: capability(fsType, csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER),
		staging: d.path("staging-" + name), target: filepath.Join(d.path("pods"), name)}
}

func (v *volume) create(ctx context.Context) error {
	resp, err := v.d.controller().CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: v.name, CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeCapabilities: []*csi.VolumeCapability{v.cap},
		Parameters: map[string]string{"type": "thin"},
	})
	if err == nil {
		v.id, v.context = resp.GetVolume().GetVolumeId(), resp.GetVolume().GetVolumeContext()
	}
	return err
}

func (v *volume) stage(ctx context.Context) error {
	if err := os.MkdirAll(v.staging, 0o750); err != nil {
		return err
	}
	_, err := v.d.node().NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging, VolumeCapability: v.cap, VolumeContext: v.context})
	return err
}

func (v *volume) publish(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(v.target), 0o750); err != nil {
		return err
	}
	_, err := v.d.node().NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging, TargetPath: v.target, VolumeCapability: v.cap, VolumeContext: v.context})
	return err
}

func (v *volume) unpublish(ctx context.Context) error {
	_, err := v.d.node().NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: v.target})
	return err
}

func (v *volume) unstage(ctx context.Context) error {
	_, err := v.d.node().NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: v.staging})
	return err
}

func (v *volume) delete(ctx context.Context) error {
	_, err := v.d.controller().DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.id})
	return err
}

// expand asks both halves; an ext4 that cannot grow in use here is no error.
func (v *volume) expand(ctx context.Context) error {
	grown := &csi.CapacityRange{RequiredBytes: size * 3 / 2}
	_, err := v.d.controller().ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: v.id, CapacityRange: grown, VolumeCapability: v.cap})
	if err != nil {
		return err
	}
	_, err = v.d.node().NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
		VolumeId: v.id, VolumePath: v.target, StagingTargetPath: v.staging, CapacityRange: grown, VolumeCapability: v.cap})
	if status.Code(err) == codes.FailedPrecondition {
		return nil
	}
	return err
}

// must calls a step and fails the test for its error.
func must(t testing.TB, step func(context.Context) error, what string) {
	t.Helper()
	if err := step(t.Context()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// retry is a CO: it repeats a step after each non-final error, for a while.
func retry(t testing.TB, step func(context.Context) error, what string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := step(t.Context())
		if err == nil {
			return
		}
		switch status.Code(err) {
		case codes.Unavailable, codes.Aborted, codes.DeadlineExceeded, codes.Canceled:
		default:
			t.Fatalf("%s: a final error: %v", what, err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still failing: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// write puts data of its own into the volume and returns what it must read back.
func (v *volume) write(t testing.TB) [sha256.Size]byte {
	t.Helper()
	data := make([]byte, 256<<10)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	f, err := os.Create(filepath.Join(v.target, "data"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// reads checks that the volume holds what was written.
func (v *volume) reads(t testing.TB, want [sha256.Size]byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(v.target, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(b) != want {
		t.Fatal("the volume reads other data than was written")
	}
}

// mounted fails the test unless exactly n mounts are stacked at path.
func mounted(t testing.TB, path string, n int) {
	t.Helper()
	stack, err := mnt.At(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if len(stack) != n {
		t.Fatalf("%d mounts at %s, want %d: %v", len(stack), path, n, stack)
	}
}

func code(t testing.TB, err error, want codes.Code, what string) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s: %s (%v), want %s", what, got, err, want)
	}
}

func numbered(name string, i int) string { return fmt.Sprintf("%s-%d", name, i) }
