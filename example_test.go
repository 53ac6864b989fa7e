package csikit_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver"
)

// README:begin

// dirs makes volumes that are directories below root.
type dirs struct{ root *os.Root }

var ids = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (d dirs) Volume(_ context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
	_, err := d.root.Lstat(req.ID)
	if errors.Is(err, fs.ErrNotExist) || !ids.MatchString(req.ID) {
		return nil, backends.VolumeNotFound(req.ID)
	}
	return &backends.Volume{ID: req.ID}, err
}

func (d dirs) VolumeID(req backends.CreateVolumeRequest) (string, error) {
	sum := sha256.Sum256([]byte(req.Name))
	return hex.EncodeToString(sum[:16]), nil
}

func (d dirs) FindVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	id, _ := d.VolumeID(req)
	return d.Volume(ctx, backends.VolumeRequest{ID: id})
}

func (d dirs) CreateVolume(_ context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	id, _ := d.VolumeID(req)
	return &backends.Volume{ID: id}, d.root.Mkdir(id, 0o750)
}

func (d dirs) DeleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	if _, err := d.Volume(ctx, backends.VolumeRequest{ID: req.ID}); err != nil {
		return err // VolumeNotFound is success
	}
	return d.root.RemoveAll(req.ID)
}

func (d dirs) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	_, err := d.Volume(ctx, backends.VolumeRequest{ID: req.ID})
	return &backends.Source{Dir: filepath.Join(d.root.Name(), req.ID)}, err
}

func (d dirs) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

// README:end

// The shortest way from a backend to a driver. In main, Run serves it until the
// context ends.
func Example() {
	dir, _ := os.MkdirTemp("", "csikit-example-")
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	backend := dirs{root}
	_, err = csidriver.New(csidriver.Config{
		Name: "dirs.csi.example.com", Version: "1.0.0",
		Traits: backends.Traits{
			Modes:      []backends.AccessMode{backends.SingleNodeWriter},
			Filesystem: true,
			Lifecycle:  backends.Persistent,
		},
		Controller: backend, Node: backend,
	}, &csidriver.Options{NodeID: "node-1", StateDir: filepath.Join(dir, ".state")})
	fmt.Println(err)
	// Output: <nil>
}

// TestExampleStaysInside: an ID that the backend did not make opens nothing.
func TestExampleStaysInside(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "volumes"), 0o700), os.Mkdir(filepath.Join(dir, "secret"), 0o700)); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(filepath.Join(dir, "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, id := range []string{"../secret", ".", "", "0123456789abcdef0123456789abcdef"} {
		if _, err := (dirs{root}).OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: id}); !errors.Is(err, backends.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
