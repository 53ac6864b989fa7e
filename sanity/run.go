package sanity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/csikit/csikit/csidriver"
)

// Run runs csi-sanity and reports each of its specs as a subtest of t. It can be
// called any number of times in a process. See the package comment for what
// happens to the code before it.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	if inChild(t) {
		return
	}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	specs, err := run(t, &cfg)
	report(t, specs)
	if err != nil {
		t.Error(err)
		return // what was skipped in half a run says nothing
	}
	if cfg.SkipsFile != "" {
		if err := checkSkips(cfg.SkipsFile, specs, os.Getenv(updateEnv) != ""); err != nil {
			t.Error(err)
		}
	}
}

// run starts the driver, has csi-sanity run, and ends the driver. Specs that
// fail are no error.
func run(t *testing.T, cfg *Config) (specs []spec, err error) {
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), cfg.Timeout, fmt.Errorf("sanity: not finished after %v", cfg.Timeout))
	defer cancel()
	if cfg.Endpoint == "" {
		stop, derr := startDriver(ctx, t, cancel, cfg)
		if derr != nil {
			return nil, derr
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	// The mounts go before anybody cleans the directory: the data below them is
	// not ours.
	defer func() { err = errors.Join(err, leftMounts(cfg.Dir)) }()
	for _, endpoint := range []string{cfg.Endpoint, cfg.ControllerEndpoint} {
		if err := waitReady(ctx, endpoint); err != nil {
			return nil, err
		}
	}
	return spawn(ctx, t, cfg)
}

// startDriver serves cfg.Driver and sets cfg.Endpoint. When the driver ends by
// itself it cancels the run.
func startDriver(ctx context.Context, t *testing.T, cancel func(), cfg *Config) (stop func() error, err error) {
	driver, err := csidriver.New(cfg.Driver, driverOptions(t, cfg))
	if err != nil {
		return nil, fmt.Errorf("sanity: %w", err)
	}
	dir, err := os.MkdirTemp("", "csi-sanity-") //nolint:usetesting // t.TempDir has the test's name in it: nobody can connect to a socket with a long path
	if err != nil {
		return nil, err
	}
	cfg.Endpoint = "unix://" + filepath.Join(dir, "csi.sock")
	lis, err := csidriver.Listen(cfg.Endpoint, 0)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	serving, end := context.WithCancel(context.WithoutCancel(ctx)) // the driver outlives the run
	served := make(chan error, 1)
	go func() {
		err := driver.Serve(serving, lis)
		if serving.Err() == nil {
			cancel()
		}
		served <- err
	}()
	return func() error {
		end()
		if err := <-served; err != nil {
			err = fmt.Errorf("sanity: the driver: %w", err)
			return errors.Join(err, os.Remove(dir))
		}
		return os.Remove(dir) // fails when the socket, or anything, is left
	}, nil
}

func driverOptions(t *testing.T, cfg *Config) *csidriver.Options {
	var o csidriver.Options
	if cfg.Options != nil {
		o = *cfg.Options
	}
	if o.NodeID == "" {
		o.NodeID = "sanity-node"
	}
	if o.StateDir == "" && o.Engine == nil {
		o.StateDir = t.TempDir()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return &o
}

// waitReady waits until the driver says that it is ready.
func waitReady(ctx context.Context, endpoint string) error {
	if endpoint == "" {
		return nil
	}
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing was sent that could be lost
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		resp, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return fmt.Errorf("sanity: probe of the driver at %s: %w", endpoint, err)
		}
		if resp.GetReady() == nil || resp.GetReady().GetValue() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("sanity: the driver at %s does not get ready: %w", endpoint, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
