package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/mounter/blockdev"
)

// parts are what a stage is made of, each alone: a fresh ext4 needs all of them,
// with four records; a clean one a probe, mount(2) and three records.
func (r *stageRig) parts(ctx context.Context, c config) ([]*row, error) {
	attach, detach := func() error { return r.attach(ctx) }, func() error { return r.detach(ctx) }
	look := func() error { return probe(ctx, r.disk.loop.Path) }
	mkfs := func() error { return r.mkfs(ctx, "ext4") }
	formatted := func() error { return errors.Join(attach(), mkfs()) }
	record := &record{dir: r.dir}
	var rows []*row
	for _, part := range []struct {
		item string
		paired
	}{
		{"probe, blank", paired{attach, look, detach}},
		{"mkfs.ext4", paired{attach, mkfs, detach}},
		{"probe, ext4", paired{formatted, look, detach}},
		{"mount(2), ext4", paired{formatted, func() error { return r.mount("ext4") }, func() error { return errors.Join(r.unmount(), detach()) }}},
		{"a record", paired{op: record.write}},
	} {
		row, err := contest(ctx, c, &row{item: "  part: " + part.item}, contender{"csikit", part.paired})
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	rows[len(rows)-1].note = "two fsyncs and an exchange of names; csikit's fresh stage has four in it, its repeated one three, and the others remember nothing"
	return rows, nil
}

func probe(ctx context.Context, path string) error {
	d, err := blockdev.Open(ctx, path, false)
	if err != nil {
		return err
	}
	_, err = d.Probe(ctx)
	return errors.Join(err, d.Close())
}

// record is written so that a crash leaves the old one or the new one.
type record struct{ dir string }

func (r *record) write() error {
	name, next := filepath.Join(r.dir, "record"), filepath.Join(r.dir, "next")
	f, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Repeat("x", 600))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, name, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) {
		err = os.Rename(next, name)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// loops measures attaching and detaching.
func loops(ctx context.Context, c config, dir string) (t *table, err error) {
	path := filepath.Join(dir, "loop")
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	if err := f.Truncate(1 << 20); err != nil {
		return nil, err
	}
	l := &loopWays{ctx: ctx, file: f}
	attach, err := contest(ctx, c, &row{item: "attach", goal: atMost(nanoseconds, 60e3, -1)},
		contender{"csikit", paired{op: l.attach, after: l.detach}},
		contender{"losetup", paired{op: l.losetup, after: l.detachRaw}},
		contender{"ioctl(2)", paired{op: l.attachRaw, after: l.detachRaw}})
	if err != nil {
		return nil, err
	}
	detach, err := contest(ctx, c, &row{item: "detach", goal: atMost(nanoseconds, 20e3, -1)},
		contender{"csikit", paired{before: l.attach, op: l.detach}},
		contender{"losetup -d", paired{before: l.attachRaw, op: func() error {
			return exec.CommandContext(ctx, "losetup", "-d", l.path).Run() //nolint:gosec // its own device
		}}},
		contender{"ioctl(2)", paired{before: l.attachRaw, op: l.detachRaw}})
	return &table{title: "loop devices", rows: []*row{attach, detach}}, err
}

// loopWays are the ways to a loop device.
type loopWays struct {
	ctx  context.Context //nolint:containedctx // of the whole measurement
	file *os.File
	loop *blockdev.Loop
	path string // by the other ways
}

func (l *loopWays) attach() (err error) {
	l.loop, err = blockdev.AttachLoop(l.ctx, l.file, blockdev.AttachOptions{})
	return err
}

func (l *loopWays) detach() error {
	return blockdev.DetachLoop(l.ctx, l.loop.Path, l.loop.Dev, l.loop.Ino)
}

func (l *loopWays) losetup() error {
	out, err := exec.CommandContext(l.ctx, "losetup", "-f", "--show", l.file.Name()).Output() //nolint:gosec // its own file
	l.path = strings.TrimSpace(string(out))
	return err
}

// attachRaw takes the next device when somebody else was faster.
func (l *loopWays) attachRaw() (err error) {
	for range 100 {
		if err = l.attachFree(); !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return err
}

func (l *loopWays) attachFree() error {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err = errors.Join(err, control.Close()); err != nil {
		return err
	}
	l.path = "/dev/loop" + strconv.Itoa(n)
	return l.open(func(fd int) error {
		return unix.IoctlLoopConfigure(fd, &unix.LoopConfig{Fd: uint32(l.file.Fd())})
	})
}

func (l *loopWays) detachRaw() error {
	return l.open(func(fd int) error { return unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0) })
}

func (l *loopWays) open(do func(fd int) error) error {
	f, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(int(f.Fd())), f.Close())
}
