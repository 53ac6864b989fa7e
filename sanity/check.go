package sanity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/sanity/internal/check"
	"github.com/csikit/csikit/sanity/internal/suite"
)

// Check is [Run] without package testing, for commands: it runs csi-sanity and
// the checks against the driver at Config.Endpoint and returns what became of
// each. An error says that the run is not whole, or that something was left
// behind; a check that failed is none. live, if not nil, is told of each check
// while it runs. When ctx ends, the check that runs is the last, and cleans up.
//
// The calling program is started again for csi-sanity: its main calls [Child]
// first.
func Check(ctx context.Context, cfg Config, live Listener) (r *Report, err error) {
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
	if cfg.Dir, err = filepath.EvalSymlinks(paths); err != nil { // as the kernel calls it
		return nil, err
	}
	ctx, cancel := limited(ctx, &cfg)
	defer cancel()
	r, err = against(ctx, dir, &cfg, false, childProcess{cfg: &cfg, live: live})
	err = errors.Join(err, context.Cause(ctx), removeEmpty(cfg.Dir))
	if err != nil {
		r.Trouble = err.Error()
	}
	return r, err
}

type silent struct{}

func (silent) Begin(string) {}
func (silent) End(Result)   {}

// against has a driver tested that serves. dir is for files of the run.
func against(ctx context.Context, dir string, cfg *Config, inProcess bool, p childProcess) (r *Report, err error) {
	r = newReport(cfg)
	defer r.End()
	// The mounts go before anybody cleans the directory: the data below them is
	// not ours.
	defer func() { err = errors.Join(err, leftMounts(cfg.Dir)) }()
	for _, endpoint := range []string{cfg.Endpoint, cfg.ControllerEndpoint} {
		if err := waitReady(ctx, endpoint); err != nil {
			return r, err
		}
	}
	known := cfg.internal(inProcess)
	lacks, err := check.LacksMandatory(ctx, &known)
	if err != nil {
		return r, err
	}
	if len(lacks) > 0 {
		r.Results = check.Without(lacks, &known, append(suite.All(), check.Check{ID: csiSanity, Title: "csi-sanity"}), p.live)
		return r, nil
	}
	if err := checkServices(ctx, cfg); err != nil {
		return r, err
	}
	if len(cfg.Only) == 0 || slices.ContainsFunc(cfg.Only, func(o string) bool { return check.Selected([]string{csiSanity}, o) }) {
		specs, serr := spawn(ctx, dir, cfg, p)
		for _, s := range specs {
			r.Results = append(r.Results, s.result(cfg))
		}
		if err := errors.Join(serr, revive(ctx, cfg, r, p.live)); err != nil || cfg.FailFast && r.Count(Fail) > 0 {
			return r, err
		}
	}
	results, facts, err := check.Run(ctx, known, suite.All(), p.live)
	if err != nil {
		return r, fmt.Errorf("sanity: %w", err)
	}
	r.Results = append(r.Results, results...)
	r.Driver, r.Version, r.Capabilities = facts.Name, facts.Version, facts.Capabilities()
	return r, nil
}

// revive starts a driver again that did not survive csi-sanity.
func revive(ctx context.Context, cfg *Config, r *Report, live Listener) error {
	gone := stillThere(ctx, cfg)
	if gone == nil || cfg.Restart == nil {
		return gone
	}
	res := Result{ID: "run/alive/" + csiSanity, Title: "The driver is a long-running service", Verdict: Fail, Clauses: []string{"PR-12"}, Broken: []string{"PR-12"},
		Message: gone.Error(), Reproduce: cfg.reproduce(csiSanity)}
	r.Results = append(r.Results, res)
	live.Begin(res.ID)
	live.End(res)
	if err := cfg.Restart(ctx); err != nil {
		return errors.Join(gone, err)
	}
	return stillThere(ctx, cfg)
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
	if err := csiclient.WaitReady(ctx, conn); err != nil && status.Code(err) != codes.Unimplemented { // that is a result, not the end
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
