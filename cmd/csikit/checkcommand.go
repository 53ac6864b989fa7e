package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/csikit/csikit/cmd/csikit/internal/walk"
	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/sanity"
)

// check runs csi-sanity against a driver that somebody else runs.
func check(ctx context.Context, args []string, out io.Writer) error {
	f := newEndpointFlags("check")
	jsonFile := f.set.String("json", "", "")
	junitFile := f.set.String("junit", "", "")
	if err := f.parse(args); err != nil {
		return err
	}
	cfg := sanity.Config{
		Endpoint: f.endpoint, Block: f.block, Parameters: f.parameters, MutableParameters: f.mutable, Secrets: f.secrets, Size: f.size, Timeout: f.timeout,
	}
	if f.node != "" {
		cfg.Endpoint, cfg.ControllerEndpoint = f.node, f.endpoint
	}
	files, err := createAll(*jsonFile, *junitFile) // before the run: it may take minutes
	if err != nil {
		return err
	}
	if f.dir != "" {
		if cfg.Dir, err = filepath.Abs(f.dir); err != nil {
			return err
		}
	}
	r := report{Endpoint: csiclient.Endpoint(f.endpoint), NodeEndpoint: csiclient.Endpoint(f.node), Access: f.access, started: time.Now()}
	specs, err := f.runSpecs(ctx, cfg, out)
	r.took = time.Since(r.started)
	for _, s := range specs {
		r.add(s)
	}
	if err != nil {
		r.add(sanity.Spec{Name: "the run", Outcome: sanity.Failed, Message: err.Error()})
		fmt.Fprintf(out, "FAIL  the run: %s\n", walk.Printable(err.Error()))
	}
	r.summary(out)
	err = errors.Join(writeFile(files[0], r.writeJSON), writeFile(files[1], r.writeJUnit))
	if err == nil && r.Failed > 0 {
		return errSaid
	}
	return err
}

// runSpecs waits for the driver, which may be about to start, and tests it.
func (f *endpointFlags) runSpecs(ctx context.Context, cfg sanity.Config, out io.Writer) ([]sanity.Spec, error) {
	for _, target := range []string{f.endpoint, f.node} {
		if target == "" {
			continue
		}
		conn, err := f.dial(ctx, out, target)
		if err != nil {
			return nil, err
		}
		if err := conn.Close(); err != nil {
			return nil, err
		}
	}
	return sanity.Check(ctx, cfg, newLines(out))
}

// createAll makes the named files; nil is one that nobody wants.
func createAll(names ...string) ([]*os.File, error) {
	files := make([]*os.File, len(names))
	for i, name := range names {
		if name == "" {
			continue
		}
		f, err := os.Create(name)
		if err != nil {
			return nil, err
		}
		files[i] = f
	}
	return files, nil
}

// writeFile writes a report, if there is a file to write it to.
func writeFile(f *os.File, write func(io.Writer) error) error {
	if f == nil {
		return nil
	}
	return errors.Join(write(f), f.Close())
}
