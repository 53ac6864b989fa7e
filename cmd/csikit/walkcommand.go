package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/csikit/csikit/cmd/csikit/internal/walk"
	"github.com/csikit/csikit/internal/csiclient"
)

// walkCommand walks a driver that somebody else runs.
func walkCommand(ctx context.Context, args []string, out io.Writer) (err error) {
	f := newEndpointFlags("walk")
	fsType := f.set.String("fs", "", "")
	noData := f.set.Bool("no-data", false, "")
	o := walk.Options{Out: out, Name: volumeName()}
	f.set.Func("inline", "", func(s string) (err error) { o.Inline, err = pairs(s); return err })
	f.set.Func("only", "", func(s string) (err error) { o.Only, err = subjects(s); return err })
	if err := f.parse(args); err != nil {
		return err
	}
	o.FSType, o.Block, o.Parameters, o.Mutable, o.Secrets = *fsType, f.block, f.parameters, f.mutable, f.secrets
	o.Size, o.Timeout, o.NoData = f.size, f.timeout, *noData
	if o.Controller, err = f.dial(ctx, out, f.endpoint); err != nil {
		return err
	}
	nodeAt := f.endpoint
	if f.node != "" {
		nodeAt = f.node
		if o.Node, err = f.dial(ctx, out, f.node); err != nil {
			return err
		}
	}
	o.SameHost = csiclient.SameHost(csiclient.SocketPath(nodeAt))
	dir, remove, err := walkDir(f.dir)
	if err != nil {
		return err
	}
	o.Dir = dir
	started := time.Now()
	fmt.Fprintf(out, "csikit walk: volume %s, paths below %s\n", o.Name, dir)
	err = errors.Join(walk.Run(ctx, o), remove())
	if err == nil {
		fmt.Fprintf(out, "\n%.1f s, nothing left\n", time.Since(started).Seconds())
	}
	return err
}

// subjects reads a list of what is to be walked.
func subjects(s string) ([]string, error) {
	all := walk.Subjects()
	list := strings.Split(s, ",")
	for _, name := range list {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("%q is not one of %s", name, strings.Join(all, ", "))
		}
	}
	return list, nil
}

// volumeName is one that nobody has.
func volumeName() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return "csikit-walk-" + hex.EncodeToString(b[:])
}

// walkDir is where the paths of a walk lie: what the kernel says of them has no
// symbolic links.
func walkDir(given string) (dir string, remove func() error, err error) {
	remove = func() error { return nil }
	if given == "" {
		if given, err = os.MkdirTemp("", "csikit-walk-"); err != nil {
			return "", nil, err
		}
		remove = func() error { return os.Remove(dir) } // fails when anything is left
	}
	if dir, err = filepath.EvalSymlinks(given); err != nil {
		return "", nil, err
	}
	dir, err = filepath.Abs(dir)
	return dir, remove, err
}
