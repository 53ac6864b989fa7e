package adopt

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/kmount"
	"github.com/csikit/csikit/mounter/mnt"
)

func TestMain(m *testing.M) {
	quiet := slog.New(slog.DiscardHandler)
	slog.SetDefault(quiet)
	klog.SetSlogLogger(quiet)
	testenv.Main(m)
}

// disks is the storage of both drivers: images that are attached as loop devices.
type disks struct {
	dir string
	mu  sync.Mutex
}

func (d *disks) file(id string) string { return filepath.Join(d.dir, id) }

func (d *disks) exists(id string) bool {
	_, err := os.Stat(d.file(id))
	return err == nil
}

func (d *disks) inode(id string) (dev, ino uint64) {
	var st unix.Stat_t
	if unix.Stat(d.file(id), &st) != nil {
		return 0, 0
	}
	return st.Dev, st.Ino
}

func (d *disks) loops(id string) ([]blockdev.Loop, error) {
	dev, ino := d.inode(id)
	return blockdev.LoopOf(dev, ino)
}

func (d *disks) attach(ctx context.Context, id string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if found, err := d.loops(id); err != nil || len(found) > 0 {
		if err != nil {
			return "", err
		}
		return found[0].Path, nil
	}
	f, err := os.OpenFile(d.file(id), os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	l, err := blockdev.AttachLoop(ctx, f, blockdev.AttachOptions{Name: id})
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return l.Path, nil
}

func (d *disks) detach(ctx context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	found, err := d.loops(id)
	dev, ino := d.inode(id)
	for _, l := range found {
		err = errors.Join(err, blockdev.DetachLoop(ctx, l.Path, dev, ino))
	}
	return err
}

// driver is one of the two.
type driver interface {
	csi.NodeServer
	io.Closer
}

type legacy struct {
	legacyDriver
	formatter *kmount.Formatter
}

func (l *legacy) Close() error { return l.formatter.Close() }

// drivers are how the two are made; state is their directory. The old driver is
// given csikit's mounter in place of mount-utils' own: two lines in its main.
var drivers = map[string]func(ctx context.Context, d *disks, state string) (driver, error){
	"engine": func(ctx context.Context, d *disks, state string) (driver, error) {
		return newEngineDriver(ctx, d, state)
	},
	"legacy": func(_ context.Context, d *disks, state string) (driver, error) {
		m, err := kmount.New(nil)
		if err != nil {
			return nil, err
		}
		f, err := kmount.NewFormatter(m, &kmount.FormatterOptions{StateDir: state})
		return &legacy{legacyDriver{mounter: f, disks: d}, f}, err
	},
}

// rig is one driver on a socket, and its client.
type rig struct {
	csi.NodeClient
	t      *testing.T
	make   func(context.Context, *disks, string) (driver, error)
	disks  *disks
	dir    string
	stop   func()
	flags  []string
	fsType string
}

// each runs test with each driver.
func each(t *testing.T, test func(r *rig)) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.ext4")
	for name, make := range drivers {
		t.Run(name, func(t *testing.T) {
			dir, err := filepath.EvalSymlinks(t.TempDir())
			must(t, err)
			r := &rig{t: t, make: make, dir: dir, disks: &disks{dir: filepath.Join(dir, "disks")}, fsType: "ext4"}
			must(t, os.Mkdir(r.disks.dir, 0o700))
			r.start()
			t.Cleanup(r.leaveNothing)
			test(r)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) start() {
	r.t.Helper()
	d, err := r.make(r.t.Context(), r.disks, r.path("state"))
	must(r.t, err)
	socket := r.path("csi.sock")
	lis, err := (&net.ListenConfig{}).Listen(r.t.Context(), "unix", socket)
	must(r.t, err)
	server := grpc.NewServer()
	csi.RegisterNodeServer(server, d)
	done := make(chan error, 1)
	go func() { done <- server.Serve(lis) }()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(r.t, err)
	r.NodeClient = csi.NewNodeClient(conn)
	r.stop = func() {
		err := conn.Close()
		server.Stop()
		if err := errors.Join(err, <-done, d.Close()); err != nil {
			r.t.Error(err)
		}
	}
}

func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// leaveNothing fails the test for what it left, and takes it away.
func (r *rig) leaveNothing() {
	list, err := mnt.List()
	must(r.t, err)
	for _, i := range slices.Backward(list) {
		if strings.HasPrefix(i.Point, r.dir+"/") {
			r.t.Errorf("left mounted: %s", i.Point)
			if err := unix.Unmount(i.Point, unix.MNT_DETACH); err != nil {
				r.t.Error(err)
			}
		}
	}
	images, err := os.ReadDir(r.disks.dir)
	must(r.t, err)
	for _, i := range images {
		if loops, err := r.disks.loops(i.Name()); len(loops) > 0 || err != nil {
			r.t.Errorf("left attached: %v %v", loops, err)
		}
		if err := r.disks.detach(context.Background(), i.Name()); err != nil {
			r.t.Error(err)
		}
	}
	r.stop()
}

func (r *rig) image(id string) {
	r.t.Helper()
	f, err := os.OpenFile(r.disks.file(id), os.O_CREATE|os.O_RDWR, 0o600)
	must(r.t, err)
	must(r.t, errors.Join(f.Truncate(64<<20), f.Close()))
}

func (r *rig) capability(block bool) *csi.VolumeCapability {
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER}}
	if block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: r.fsType, MountFlags: r.flags}}
	}
	return c
}

func (r *rig) stage(id string, block bool) error {
	_, err := r.NodeStageVolume(r.t.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: id, StagingTargetPath: r.path("staging-" + id), VolumeCapability: r.capability(block),
	})
	return err
}

func (r *rig) publish(id, target string, block, ro bool) error {
	_, err := r.NodePublishVolume(r.t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: id, StagingTargetPath: r.path("staging-" + id), TargetPath: r.path(target), VolumeCapability: r.capability(block), Readonly: ro,
	})
	return err
}

func (r *rig) unpublish(id, target string) error {
	_, err := r.NodeUnpublishVolume(r.t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: r.path(target)})
	return err
}

func (r *rig) unstage(id string) error {
	_, err := r.NodeUnstageVolume(r.t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: r.path("staging-" + id)})
	return err
}

func (r *rig) mounts(name string) int {
	r.t.Helper()
	at, err := mnt.At(r.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	must(r.t, err)
	return len(at)
}
