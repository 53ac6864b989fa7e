package main

import (
	"context"
	"fmt"

	"github.com/csikit/csikit/cmd/csikit/internal/walk"
)

// demoSize in bytes; mkfs.xfs wants 300 MiB at least.
const demoSize = 512 << 20

func title(p walk.Printer, w workspace) {
	if w.rootless {
		fmt.Fprintln(p.Out, "csikit demo: directory driver in a user namespace (not root)")
		fmt.Fprintln(p.Out, "  What this cannot show: block devices, mkfs, growth, loop devices. As root it does.")
	} else {
		fmt.Fprintln(p.Out, "csikit demo: loop-file driver in a mount namespace of its own")
	}
	fmt.Fprintln(p.Out, "  working in", w.dir)
}

// walkVolume walks a volume of one file system, and kills the driver on the way.
func walkVolume(ctx context.Context, d *driver, w workspace, fsType string, p walk.Printer) error {
	name, size := fsType, int64(demoSize)
	if w.rootless {
		name, size = "directory", 0
	}
	p.Section(name)
	err := walk.Run(ctx, walk.Options{
		Controller: d.Conn(), Out: p.Out, Name: "demo-" + name, Dir: w.pods(), FSType: fsType, Size: size, SameHost: true,
		Only:      []string{"life"},
		Published: func(ctx context.Context, k *walk.Volume) error { return killDriver(ctx, d, k) },
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// killDriver kills the driver while pods use the volume, and starts it again.
func killDriver(ctx context.Context, d *driver, k *walk.Volume) error {
	k.Section(fmt.Sprintf("kill -9 %d; the pods do not notice", d.PID()))
	if err := d.Kill(); err != nil {
		return err
	}
	const pod = "pod-2"
	if err := k.Compare(pod); err != nil {
		return err
	}
	if err := d.Start(ctx); err != nil {
		return err
	}
	k.See("driver runs again, pid %d", d.PID())
	return k.Publish(ctx, pod, "repeated by the CO after the restart")
}
