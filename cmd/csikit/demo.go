package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
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
		return walkAll(ctx, w, strings.Split(*fsTypes, ","), &printer{out: out})
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
	if n, err := countMounts(dir); err != nil || n > 0 {
		return fmt.Errorf("%s still has %d mounts below it, not removed (%w)", dir, n, err)
	}
	return os.RemoveAll(dir)
}

// walkAll walks one volume for each file system, and then counts.
func walkAll(ctx context.Context, w workspace, fsTypes []string, p *printer) error {
	for _, d := range []string{w.pool(), w.state(), w.pods()} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return err
		}
	}
	p.title(w)
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
	p.leftovers(left, time.Since(started))
	if failed != nil {
		return failed
	}
	if left.any() {
		return errSaid
	}
	return nil
}

// leftovers is what the demo did not clean up, as the kernel and the pool show it.
type leftovers struct{ mounts, loops, files []string }

func (l leftovers) any() bool { return len(l.mounts)+len(l.loops)+len(l.files) > 0 }

// countLeft looks at mountinfo, at /sys/block and at the files of the pool, of
// the node records, and of the paths where volumes were published.
func countLeft(w workspace) (leftovers, error) {
	var l leftovers
	var err error
	if l.mounts, err = mountsBelow(w.dir); err != nil {
		return l, err
	}
	if l.loops, err = loopsBelow(w.dir); err != nil {
		return l, err
	}
	for _, dir := range []string{w.pool(), w.state(), w.pods()} {
		// A leaked mount is counted above; its files belong to the volume.
		files, err := filesBelow(dir, l.mounts)
		if err != nil {
			return l, err
		}
		l.files = append(l.files, files...)
	}
	return l, nil
}

// own names the files that an empty pool and an idle driver have.
var own = map[string]bool{"pool.json": true, ".lock.controller": true, ".lock.node": true, "lock": true}

func filesBelow(dir string, mounts []string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, m := range mounts {
			if path == m && e.IsDir() {
				return fs.SkipDir
			}
		}
		if !e.IsDir() && !own[e.Name()] {
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

// loopsBelow names the loop devices whose backing file lies in dir.
func loopsBelow(dir string) ([]string, error) {
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var loops []string
	for _, n := range names {
		b, err := os.ReadFile(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // detached since
		}
		if err != nil {
			return nil, err
		}
		// Contains: in a chroot the kernel may show the path from outside of it.
		if strings.Contains(string(b), dir+"/") {
			loops = append(loops, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(n)))+" on "+strings.TrimSpace(string(b)))
		}
	}
	return loops, nil
}

func countMounts(dir string) (int, error) {
	m, err := mountsBelow(dir)
	return len(m), err
}
