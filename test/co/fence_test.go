package co

import (
	"context"

	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// fenced is the kernel as one process has it: not at all once it is dead, and with
// the failures of the schedule.
type fenced struct {
	mounter.Kernel
	p *incarnation
	w *world
}

// around does what a system call or a tool does.
func (f *fenced) around(ctx context.Context, name string, fn func() error) error {
	if err := f.w.point(ctx, f.p, mem.Before, "kernel."+name); err != nil {
		return err
	}
	err := fn()
	if lost := f.w.point(ctx, f.p, mem.After, "kernel."+name); lost != nil {
		return lost
	}
	return err
}

func (f *fenced) Mount(ctx context.Context, m mounter.MountRequest) error {
	return f.around(ctx, "Mount", func() error { return f.Kernel.Mount(ctx, m) })
}

func (f *fenced) Bind(source, target string, o mnt.BindOptions) error {
	return f.around(context.Background(), "Bind", func() error { return f.Kernel.Bind(source, target, o) })
}

func (f *fenced) BindDevice(d mounter.Device, target string, o mnt.BindOptions) error {
	return f.around(context.Background(), "BindDevice", func() error { return f.Kernel.BindDevice(d, target, o) })
}

func (f *fenced) Unwind(path string) (n int, err error) {
	err = f.around(context.Background(), "Unwind", func() (err error) { n, err = f.Kernel.Unwind(path); return err })
	return n, err
}

func (f *fenced) Mkfs(ctx context.Context, d mounter.Device, fsType string, options []string) error {
	return f.around(ctx, "Mkfs", func() error { return f.Kernel.Mkfs(ctx, d, fsType, options) })
}

func (f *fenced) Grow(ctx context.Context, d mounter.Device, fsType, path string) error {
	return f.around(ctx, "Grow", func() error { return f.Kernel.Grow(ctx, d, fsType, path) })
}
