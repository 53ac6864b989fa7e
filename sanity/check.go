package sanity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/csikit/csikit/internal/csiclient"
)

// Check is [Run] without package testing, for commands: it runs csi-sanity
// against the driver at Config.Endpoint and returns what became of each spec. An
// error says that the run is not whole, or that something was left behind; a
// spec that failed is none. live, if not nil, is told of each spec while it
// runs. When ctx ends, the spec that runs is the last, and cleans up.
//
// The calling program is started again for it: its main calls [Child] first.
func Check(ctx context.Context, cfg Config, live Listener) (specs []Spec, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if cfg.Endpoint == "" {
		return nil, errors.New("sanity: Check needs an Endpoint; a Driver is for Run")
	}
	if live == nil {
		live = silent{}
	}
	dir, err := os.MkdirTemp("", "csikit-sanity-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }() // the order and the report; nobody mounts here
	paths, err := os.MkdirTemp(cfg.Dir, "csikit-check-")
	if err != nil {
		return nil, err
	}
	cfg.Dir = paths
	ctx, cancel := limited(ctx, &cfg)
	defer cancel()
	specs, err = against(ctx, dir, &cfg, childProcess{live: live})
	return specs, errors.Join(err, context.Cause(ctx), removeEmpty(paths))
}

type silent struct{}

func (silent) Begin(string) {}
func (silent) End(Spec)     {}

// against has csi-sanity run against a driver that serves. dir is for files of
// the run.
func against(ctx context.Context, dir string, cfg *Config, p childProcess) (specs []Spec, err error) {
	// The mounts go before anybody cleans the directory: the data below them is
	// not ours.
	defer func() { err = errors.Join(err, leftMounts(cfg.Dir)) }()
	for _, endpoint := range []string{cfg.Endpoint, cfg.ControllerEndpoint} {
		if err := waitReady(ctx, endpoint); err != nil {
			return nil, err
		}
	}
	if err := checkServices(ctx, cfg); err != nil {
		return nil, err
	}
	specs, err = spawn(ctx, dir, cfg, p)
	return specs, errors.Join(err, stillThere(ctx, cfg))
}

// waitReady waits until the driver says that it is ready.
func waitReady(ctx context.Context, endpoint string) error {
	if endpoint == "" {
		return nil
	}
	conn, err := csiclient.Dial(endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing was sent that could be lost
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := csiclient.WaitReady(ctx, conn); err != nil {
		return fmt.Errorf("sanity: the driver at %s: %w", csiclient.Endpoint(endpoint), err)
	}
	return nil
}

// removeEmpty removes the directories of a run, and nothing that is in them:
// what a driver has left there may be a volume's.
func removeEmpty(dir string) error {
	for _, d := range []string{"target/target", "target/other_target", "target", "staging", ""} {
		_ = os.Remove(filepath.Join(dir, d)) // it is not there; or it is not empty, which the last one tells
	}
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("sanity: something is left below %s", dir)
	}
	return nil
}
