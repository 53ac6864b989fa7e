package mountertest

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// Options of [New]. The zero value is fine.
type Options struct {
	StateDir string   // "": a temporary directory
	Kernel   *Kernel  // nil: a new one
	FSTypes  []string // as in mounter.Options
	// Adjust changes the engine's options before it is made; nil ok.
	Adjust func(*mounter.Options)
}

// Engine is a running node engine and the kernel below it.
type Engine struct {
	*mounter.Engine
	Kernel *Kernel

	node backends.Node
	opts Options
}

// New starts an engine, and closes it at the end of the test.
func New(t testing.TB, node backends.Node, o *Options) *Engine {
	t.Helper()
	e := &Engine{node: node}
	if o != nil {
		e.opts = *o
	}
	if e.opts.StateDir == "" {
		e.opts.StateDir = filepath.Join(t.TempDir(), "state")
	}
	if e.opts.Kernel == nil {
		e.opts.Kernel = NewKernel()
	}
	e.Kernel = e.opts.Kernel
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// Restart stops the engine as a crash would, and starts another one on the same
// records and the same kernel.
func (e *Engine) Restart() error {
	if err := e.Close(); err != nil {
		return err
	}
	return e.start()
}

// StateDir is where the records are: below v1.
func (e *Engine) StateDir() string { return e.opts.StateDir }

func (e *Engine) start() error {
	opts := &mounter.Options{
		StateDir: e.opts.StateDir, AllowVolatileState: true, Kernel: e.Kernel, FSTypes: e.opts.FSTypes,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if e.opts.Adjust != nil {
		e.opts.Adjust(opts)
	}
	m, err := mounter.New(e.node, opts)
	if err != nil {
		return err
	}
	e.Engine = m
	return m.Start(context.Background())
}
