package csidriver_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver"
)

// shares is a backend whose volumes are directories of a file server.
type shares struct{}

func (shares) Volume(_ context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
	return nil, backends.VolumeNotFound(req.ID)
}

func (shares) FindVolume(_ context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return nil, backends.VolumeNotFound(req.Name)
}

func (shares) CreateVolume(_ context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return &backends.Volume{ID: req.Name, Fingerprint: req.Fingerprint}, nil
}

func (shares) DeleteVolume(_ context.Context, req backends.DeleteVolumeRequest) error {
	return backends.VolumeNotFound(req.ID)
}

// The controller process of a driver: what does not fit together is reported all
// at once, before anything is started.
func ExampleNew() {
	cfg := csidriver.Config{
		Name: "shares.csi.example.com", Version: "1.0.0",
		Traits: backends.Traits{
			Modes:       []backends.AccessMode{backends.MultiNodeMultiWriter},
			Filesystem:  true,
			Lifecycle:   backends.Persistent,
			SizeMin:     2 << 30,
			SizeDefault: 1 << 30,
			FSTypes:     []string{"nfs4"},
		},
		Controller: shares{},
		Serve:      csidriver.ServeController,
	}
	options := &csidriver.Options{Logger: slog.New(slog.DiscardHandler)}
	_, err := csidriver.New(cfg, options)
	fmt.Println(err)

	cfg.Traits.SizeDefault = 2 << 30
	cfg.Traits.FSTypes = nil
	_, err = csidriver.New(cfg, options)
	fmt.Println(err)
	// Output:
	// csidriver: Traits.SizeDefault 1073741824 is less than SizeMin 2147483648
	// Traits.FSTypes without Devices: csikit makes no file system then
	// Traits.FSTypes: "nfs4" is not one of ext4, xfs, btrfs
	// <nil>
}
