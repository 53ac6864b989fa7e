package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter/fusehost"
)

// fuseHost runs the servers of FUSE volumes until it is told to end.
func fuseHost(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("fuse-host", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	socket := set.String("socket", "", "")
	grace := set.Duration("grace", 5*time.Second, "")
	if err := set.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if !filepath.IsAbs(*socket) || set.NArg() > 0 || *grace <= 0 {
		return fmt.Errorf("%w: fuse-host -socket takes an absolute path", errUsage)
	}
	lis, err := csidriver.Listen("unix://"+*socket, 0o600)
	if err != nil {
		return err
	}
	return fusehost.New(&fusehost.Options{Grace: *grace}).Serve(ctx, lis)
}
