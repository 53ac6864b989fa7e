package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/csikit/csikit/cmd/csikit/internal/walk"
)

// leftovers is what the demo did not clean up, as the kernel and the pool show it.
type leftovers struct{ mounts, loops, files []string }

func (l leftovers) any() bool { return len(l.mounts)+len(l.loops)+len(l.files) > 0 }

// countLeft looks at mountinfo, at /sys/block and at the files of the pool, of
// the node records, and of the paths where volumes were published.
func countLeft(w workspace) (leftovers, error) {
	var l leftovers
	var err error
	if l.mounts, err = walk.MountsBelow(w.dir); err != nil {
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

func (l leftovers) print(p walk.Printer, took time.Duration) {
	fmt.Fprintf(p.Out, "\n%.1f s\n", took.Seconds())
	for _, kind := range [][]string{l.mounts, l.loops, l.files} {
		for _, name := range kind {
			fmt.Fprintln(p.Out, "  left:", name)
		}
	}
	fmt.Fprintf(p.Out, "%d mounts, %d loop devices, %d files left\n", len(l.mounts), len(l.loops), len(l.files))
}
