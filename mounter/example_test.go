package mounter_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
)

// directories is a backend whose volumes are directories.
type directories struct{ root string }

func (d directories) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	return &backends.Source{Dir: filepath.Join(d.root, req.ID)}, nil
}

func (directories) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

// A driver with a node service of its own takes a volume to a pod and back. The
// kernel here is the one for tests; without it the engine works on the machine.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(filepath.Join(dir, "volumes/v1"), 0o750); err != nil {
		panic(err)
	}
	kernel := mountertest.NewKernel()
	engine, err := mounter.New(directories{filepath.Join(dir, "volumes")}, &mounter.Options{
		StateDir: filepath.Join(dir, "state"), Kernel: kernel, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		panic(err)
	}
	if err := engine.Start(ctx); err != nil {
		panic(err)
	}
	defer engine.Close()

	capability := backends.Capability{Mode: backends.SingleNodeWriter}
	staging, target := filepath.Join(dir, "staging"), filepath.Join(dir, "pod/mount")
	fmt.Println(engine.Stage(ctx, mounter.StageRequest{ID: "v1", Path: staging, Capability: capability}))
	fmt.Println(engine.Publish(ctx, mounter.PublishRequest{ID: "v1", StagingPath: staging, Path: target, Capability: capability}))
	fmt.Println(len(kernel.Mounts()), engine.Volumes())
	fmt.Println(engine.Unpublish(ctx, mounter.UnpublishRequest{ID: "v1", Path: target}))
	fmt.Println(engine.Unstage(ctx, mounter.UnstageRequest{ID: "v1", Path: staging}))
	fmt.Println(len(kernel.Mounts()), engine.Volumes())
	// Output:
	// <nil>
	// <nil>
	// 2 [v1]
	// <nil>
	// <nil>
	// 0 []
}
