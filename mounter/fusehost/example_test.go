package fusehost_test

import (
	"context"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/fusehost"
)

// archives is a backend whose volumes are SquashFS images.
type archives struct{ backends.Node }

func (archives) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	return &backends.Source{FUSE: &backends.FUSE{
		Source: req.ID, Subtype: "squashfuse", Options: []string{"allow_other", "nosuid", "nodev"},
		Path: "/usr/bin/squashfuse", Args: []string{"-f", "/srv/images/" + req.ID, "/dev/fd/{fd}"},
	}}, nil
}

// The driver's side: in another container "csikit fuse-host" listens at the socket.
func ExampleNewClient() {
	_, err := mounter.New(archives{}, &mounter.Options{
		StateDir: "/var/lib/my-driver",
		Servers:  fusehost.NewClient("/run/my-driver/fuse.sock"),
	})
	if err != nil {
		panic(err)
	}
}
