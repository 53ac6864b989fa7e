package sanity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/csikit/csikit/csidriver"
)

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
