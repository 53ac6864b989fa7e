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

	"google.golang.org/grpc"

	"github.com/csikit/csikit/cmd/csikit/internal/walk"
	"github.com/csikit/csikit/internal/csiclient"
)

// connectTime is how long a driver may take to get ready.
const connectTime = time.Minute

// walkCommand walks one volume of a driver that somebody else runs.
func walkCommand(ctx context.Context, args []string, out io.Writer) (err error) {
	f := newEndpointFlags("walk")
	fsType := f.set.String("fs", "", "")
	noData := f.set.Bool("no-data", false, "")
	timeout := f.set.Duration("timeout", 0, "")
	o := walk.Options{Out: out, Name: volumeName()}
	f.set.Func("mutable-parameters", "", func(s string) (err error) { o.Mutable, err = pairs(s); return err })
	f.set.Func("inline", "", func(s string) (err error) { o.Inline, err = pairs(s); return err })
	f.set.Func("only", "", func(s string) (err error) { o.Only, err = subjects(s); return err })
	if err := f.parse(args); err != nil {
		return err
	}
	o.FSType, o.Block, o.Parameters, o.Secrets = *fsType, f.block, f.parameters, f.secrets
	o.Size, o.Timeout, o.NoData = f.size, *timeout, *noData
	if o.Controller, err = dialReady(ctx, f.endpoint); err != nil {
		return err
	}
	nodeAt := f.endpoint
	if f.node != "" {
		nodeAt = f.node
		if o.Node, err = dialReady(ctx, f.node); err != nil {
			return err
		}
	}
	o.SameHost = walk.SameHost(csiclient.SocketPath(nodeAt))
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

// dialReady connects to a driver and waits until it is ready. The connection
// ends with the process.
func dialReady(ctx context.Context, target string) (*grpc.ClientConn, error) {
	conn, err := csiclient.Dial(target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	if err := csiclient.WaitReady(ctx, conn); err != nil {
		return nil, fmt.Errorf("the driver at %s: %w", target, errors.Join(err, conn.Close()))
	}
	return conn, nil
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
