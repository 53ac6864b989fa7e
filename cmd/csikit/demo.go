package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/csikit/csikit/cmd/csikit/internal/walk"
)

// workspace is where a demo keeps everything: what is left is looked for here.
type workspace struct {
	dir      string
	rootless bool
}

func (w workspace) pool() string   { return filepath.Join(w.dir, "pool") }
func (w workspace) state() string  { return filepath.Join(w.dir, "state") }
func (w workspace) pods() string   { return filepath.Join(w.dir, "pods") }
func (w workspace) socket() string { return filepath.Join(w.dir, "csi.sock") }
func (w workspace) log() string    { return filepath.Join(w.dir, "driver.log") }

// demo runs in two processes: the outer one makes the workspace and removes it,
// the inner one lives in a mount namespace that dies with it.
func demo(ctx context.Context, args []string, out io.Writer) error {
	fl := flag.NewFlagSet("demo", flag.ContinueOnError)
	fl.SetOutput(io.Discard)
	dir := fl.String("dir", "", "directory to work in; it is kept (default: a temporary one)")
	fsTypes := fl.String("fs", "xfs,ext4", "file systems to walk")
	if err := fl.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if os.Getenv(envInside) != "" {
		w := workspace{dir: *dir, rootless: os.Getenv(envInside) == insideUser}
		return walkAll(ctx, w, strings.Split(*fsTypes, ","), walk.Printer{Out: out})
	}
	if fl.NArg() > 0 {
		return fmt.Errorf("%w (unexpected arguments %q)", errUsage, fl.Args())
	}
	keep := *dir != ""
	if !keep {
		tmp, err := os.MkdirTemp("", "csikit-demo-")
		if err != nil {
			return err
		}
		*dir = tmp
	}
	abs, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	if err := enterNamespace(ctx, out, "demo", "-dir", abs, "-fs", *fsTypes); err != nil {
		fmt.Fprintf(out, "kept for a look: %s\n", abs)
		return err
	}
	if keep {
		return nil
	}
	return removeWorkspace(abs)
}

// removeWorkspace removes what an orderly end leaves: files, never a mount.
func removeWorkspace(dir string) error {
	if n, err := walk.MountsBelow(dir); err != nil || len(n) > 0 {
		return fmt.Errorf("%s still has mounts below it, not removed: %v (%w)", dir, n, err)
	}
	return os.RemoveAll(dir)
}

// walkAll walks one volume for each file system, and then counts.
func walkAll(ctx context.Context, w workspace, fsTypes []string, p walk.Printer) error {
	for _, d := range []string{w.pool(), w.state(), w.pods()} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return err
		}
	}
	title(p, w)
	if w.rootless {
		fsTypes = []string{""}
	}
	started := time.Now()
	d := newDriver(w)
	if err := d.Start(ctx); err != nil {
		return err
	}
	var failed error
	for _, fsType := range fsTypes {
		if failed = walkVolume(ctx, d, w, fsType, p); failed != nil {
			d.showLog(p)
			break
		}
	}
	if err := d.Close(); err != nil {
		failed = errors.Join(failed, fmt.Errorf("the driver did not stop cleanly: %w", err))
	}
	left, err := countLeft(w)
	if err != nil {
		return errors.Join(failed, err)
	}
	left.print(p, time.Since(started))
	if failed != nil {
		return failed
	}
	if left.any() {
		return errSaid
	}
	return nil
}
