package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/csikit/csikit/sanity"
)

// check runs csi-sanity against a driver that somebody else runs.
func check(ctx context.Context, args []string, out io.Writer) error {
	f := newEndpointFlags("check")
	jsonFile := f.set.String("json", "", "")
	junitFile := f.set.String("junit", "", "")
	timeout := f.set.Duration("timeout", 0, "")
	if err := f.parse(args); err != nil {
		return err
	}
	cfg := sanity.Config{
		Endpoint: f.endpoint, Block: f.block, Parameters: f.parameters, Secrets: f.secrets, Size: f.size, Timeout: *timeout,
	}
	if f.node != "" {
		cfg.Endpoint, cfg.ControllerEndpoint = f.node, f.endpoint
	}
	var err error
	if f.dir != "" {
		if cfg.Dir, err = filepath.Abs(f.dir); err != nil {
			return err
		}
	}
	r := report{Endpoint: f.endpoint, NodeEndpoint: f.node, Access: f.access, started: time.Now()}
	specs, err := sanity.Check(ctx, cfg, newLines(out))
	r.took = time.Since(r.started)
	for _, s := range specs {
		r.add(s)
	}
	if err != nil {
		r.add(sanity.Spec{Name: "the run", Outcome: sanity.Failed, Message: err.Error()})
		fmt.Fprintf(out, "FAIL  the run: %v\n", err)
	}
	r.summary(out)
	err = errors.Join(writeFile(*jsonFile, r.writeJSON), writeFile(*junitFile, r.writeJUnit))
	if err == nil && r.Failed > 0 {
		return errSaid
	}
	return err
}

// writeFile writes a report, if there is a file to write it to.
func writeFile(name string, write func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
