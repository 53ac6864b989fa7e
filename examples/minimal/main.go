// Command minimal is a whole CSI driver in one file: a volume is a directory below -root. See README.md.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter/mnt"
)

var traits = backends.Traits{
	Modes:      []backends.AccessMode{backends.SingleNodeSingleWriter, backends.SingleNodeMultiWriter, backends.SingleNodeReader},
	Filesystem: true, Lifecycle: backends.Persistent,
	Parameters: []backends.Parameter{}, // none at all, so there is nothing to remember of a volume
	Kubernetes: backends.Kubernetes{FSGroupPolicy: "File"},
}

// backend makes a volume by one mkdir and takes it away by one rename, so that nobody ever sees half of one.
type backend struct{ root *os.Root }

func (b backend) VolumeID(req backends.CreateVolumeRequest) (string, error) { //nolint:unparam // the contract has an error
	return fmt.Sprintf("d-%x", sha256.Sum256([]byte(req.Name))), nil // any name gives a good directory
}

func (b backend) Volume(_ context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
	_, err := b.root.Lstat(req.ID)
	if !strings.HasPrefix(req.ID, "d-") || strings.ContainsAny(req.ID, "/\x00") || errors.Is(err, fs.ErrNotExist) {
		return nil, backends.VolumeNotFound(req.ID) // no other error says so: a disk that fails has lost nothing
	}
	return &backends.Volume{ID: req.ID}, err
}

func (b backend) FindVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	id, _ := b.VolumeID(req) // never fails
	v, err := b.Volume(ctx, backends.VolumeRequest{ID: id})
	return v, errors.Join(err, b.sync()) // its maker may have died before it synced
}

func (b backend) CreateVolume(_ context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	id, _ := b.VolumeID(req) // never fails
	err := errors.Join(b.root.Mkdir(id, 0o755), b.sync())
	return &backends.Volume{ID: id}, err // an error of no kind: the CO asks again
}

func (b backend) DeleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	if _, err := b.Volume(ctx, backends.VolumeRequest(req)); err != nil {
		return err // VolumeNotFound is success
	}
	mounts, err := mnt.List()
	for _, m := range mounts {
		if strings.HasPrefix(m.Point, filepath.Join(b.root.Name(), req.ID)) {
			return fmt.Errorf("%w: %s is mounted, and what it holds is not ours", backends.ErrInUse, m.Point)
		}
	}
	if err = errors.Join(err, b.root.RemoveAll("old-"+req.ID)); err != nil { // left of an earlier volume of this name
		return err
	}
	if err = errors.Join(b.root.Rename(req.ID, "old-"+req.ID), b.sync()); err != nil {
		return err
	}
	return b.root.RemoveAll("old-" + req.ID)
}

// RecoverController finishes what a driver that was killed had begun to remove.
func (b backend) RecoverController(context.Context) error {
	old, err := fs.Glob(b.root.FS(), "old-d-*")
	for _, name := range old {
		err = errors.Join(err, b.root.RemoveAll(name))
	}
	return err
}

func (b backend) sync() error {
	dir, err := b.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (b backend) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	_, err := b.Volume(ctx, backends.VolumeRequest{ID: req.ID})
	return &backends.Source{Dir: filepath.Join(b.root.Name(), req.ID)}, err
}

func (b backend) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

func main() {
	endpoint := flag.String("endpoint", "", "where to listen, unix:///path (default $CSI_ENDPOINT)")
	node := flag.String("node-id", "", "name of this node")
	state := flag.String("state-dir", "/var/lib/csi-minimal", "records of what is mounted, on the host's own disk")
	path := flag.String("root", "", "absolute path of the directory of the volumes; it must exist")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := filepath.EvalSymlinks(*path) // as the mount table names it
	root, err2 := os.OpenRoot(dir)
	b := backend{root}
	d, err3 := csidriver.New(csidriver.Config{Name: "minimal.csikit.dev", Traits: traits, Controller: b, Node: b},
		&csidriver.Options{NodeID: *node, StateDir: *state})
	if err = errors.Join(err, err2, err3); err == nil {
		err = d.Run(ctx, *endpoint)
	}
	if err != nil {
		log.Fatal(err)
	}
}
