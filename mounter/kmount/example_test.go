package kmount_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"k8s.io/mount-utils"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/kmount"
	"github.com/csikit/csikit/mounter/mountertest"
)

// An old driver gets other mounts by its main alone.
func ExampleNewFormatter() {
	type driver struct {
		mounter interface { // as the driver has it already
			mount.Interface
			FormatAndMount(source, target, fstype string, options []string) error
		}
	}
	run := func() error {
		m, err := kmount.New(nil) // was mount.New("")
		if err != nil {
			return err
		}
		// was mount.NewSafeFormatAndMount(m, exec.New())
		f, err := kmount.NewFormatter(m, &kmount.FormatterOptions{StateDir: "/var/lib/my-driver/mkfs"})
		if err != nil {
			return err
		}
		d := driver{mounter: f}
		return d.mounter.FormatAndMount("/dev/sdb", "/var/lib/kubelet/plugins/x/globalmount", "ext4", []string{"noatime"})
	}
	_ = run
}

// Read-only from the first instant, and once: Same looks before it mounts.
func ExampleMounter_Mount() {
	publish := func(staging, target string) error {
		m, err := kmount.New(&kmount.Options{Same: true})
		if err != nil {
			return err
		}
		return m.Mount(staging, target, "", []string{"bind", "ro"})
	}
	_ = publish
}

// volumes is a backend whose volumes are directories.
type volumes string

func (v volumes) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	return &backends.Source{Dir: filepath.Join(string(v), req.ID)}, nil
}

func (volumes) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

// A driver's tests that look into mount-utils' FakeMounter stay as they are when the
// driver changes to csikit's engine.
func ExampleOverInterface() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(filepath.Join(dir, "volumes/v1"), 0o750); err != nil {
		panic(err)
	}
	fake := mount.NewFakeMounter(nil)
	kernel, err := kmount.OverInterface(fake, &kmount.KernelOptions{Base: mountertest.NewKernel()})
	if err != nil {
		panic(err)
	}
	engine, err := mounter.New(volumes(filepath.Join(dir, "volumes")), &mounter.Options{
		StateDir: filepath.Join(dir, "state"), Kernel: kernel, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	if err := engine.Start(ctx); err != nil {
		panic(err)
	}
	defer engine.Close()
	staging := filepath.Join(dir, "staging")
	fmt.Println(engine.Stage(ctx, mounter.StageRequest{ID: "v1", Path: staging, Capability: backends.Capability{Mode: backends.SingleNodeWriter}}))
	fmt.Println(engine.Unstage(ctx, mounter.UnstageRequest{ID: "v1", Path: staging}))
	for _, a := range fake.GetLog() {
		fmt.Println(a.Action, filepath.Base(a.Source), filepath.Base(a.Target))
	}
	// Output:
	// <nil>
	// <nil>
	// mount v1 staging
	// unmount . staging
}
