package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/csikit/csikit/backends"
)

// directory is the backend of a demo without root: a volume is a directory of
// the workspace. It keeps nothing across a power cut and needs to keep nothing.
type directory struct{ root *os.Root }

var directoryTraits = backends.Traits{
	Modes:      []backends.AccessMode{backends.SingleNodeWriter, backends.SingleNodeMultiWriter},
	Filesystem: true,
	Lifecycle:  backends.Persistent,
}

var directoryID = regexp.MustCompile(`^d-[0-9a-f]{32}$`)

func (d *directory) Volume(_ context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
	if !directoryID.MatchString(req.ID) {
		return nil, backends.VolumeNotFound(req.ID)
	}
	switch _, err := d.root.Lstat(req.ID); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, backends.VolumeNotFound(req.ID)
	case err != nil:
		return nil, err
	}
	return &backends.Volume{ID: req.ID}, nil
}

func (d *directory) VolumeID(req backends.CreateVolumeRequest) (string, error) {
	sum := sha256.Sum256([]byte(req.Name))
	return "d-" + hex.EncodeToString(sum[:16]), nil
}

func (d *directory) FindVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	id, err := d.VolumeID(req)
	if err != nil {
		return nil, err
	}
	return d.Volume(ctx, backends.VolumeRequest{ID: id})
}

func (d *directory) CreateVolume(_ context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	id, err := d.VolumeID(req)
	if err != nil {
		return nil, err
	}
	return &backends.Volume{ID: id}, d.root.Mkdir(id, 0o750)
}

func (d *directory) DeleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	if _, err := d.Volume(ctx, backends.VolumeRequest{ID: req.ID}); err != nil {
		return err
	}
	return d.root.RemoveAll(req.ID)
}

func (d *directory) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	if _, err := d.Volume(ctx, backends.VolumeRequest{ID: req.ID}); err != nil {
		return nil, err
	}
	return &backends.Source{Dir: filepath.Join(d.root.Name(), req.ID)}, nil
}

func (d *directory) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

var (
	_ backends.Controller = (*directory)(nil)
	_ backends.Node       = (*directory)(nil)
	_ backends.VolumeIDer = (*directory)(nil)
)
