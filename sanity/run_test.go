package sanity

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver"
)

// TestRun: several runs in one process, mount and block, each spec a subtest.
func TestRun(t *testing.T) {
	for _, block := range []bool{false, true} {
		t.Run(fmt.Sprintf("block=%t (a name with odd characters: [1].*)", block), func(t *testing.T) {
			cfg := newStorage().config()
			cfg.Block = block
			cfg.SkipsFile = "testdata/skips.txt"
			cfg.Secrets = map[string]string{"password": "canary"}
			Run(t, cfg)
		})
	}
}

// TestRunTwice: two runs in one test, and the code after them runs once.
func TestRunTwice(t *testing.T) {
	Run(t, newStorage().config())
	if os.Getenv(orderEnv) != "" {
		t.Error("the child went on after Run")
	}
	Run(t, newStorage().config())
}

// TestRunAround: a run in a test around another run.
func TestRunAround(t *testing.T) {
	Run(t, newStorage().config())
	t.Run("inner", func(t *testing.T) {
		cfg := newStorage().config()
		cfg.Block = true
		Run(t, cfg)
	})
}

// TestRunEndpoint: a driver that somebody else started, in two processes' worth
// of servers.
func TestRunEndpoint(t *testing.T) {
	s := newStorage()
	cfg := s.config()
	dir := t.TempDir()
	serve := func(name string, what csidriver.Services) (endpoint string) {
		c := cfg.Driver
		c.Serve = what
		d, err := csidriver.New(c, &csidriver.Options{NodeID: "n", Engine: engine{s}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx, path) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return "unix:" + path
	}
	Run(t, Config{
		Only:               []string{csiSanity},
		Endpoint:           serve("node.sock", csidriver.ServeNode),
		ControllerEndpoint: serve("controller.sock", csidriver.ServeController),
	})
}

// outcomes runs csi-sanity as Run does, without failing t.
func outcomes(t *testing.T, cfg Config) (failures []string, err error) {
	t.Helper()
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	r, err := run(t, &cfg)
	if r == nil {
		return nil, err
	}
	for _, r := range r.With(Fail) {
		failures = append(failures, r.ID+": "+r.Message)
	}
	return failures, err
}

// TestFailuresAreSeen: a driver that is wrong, and the run that says where.
func TestFailuresAreSeen(t *testing.T) {
	if inChild(t) {
		return
	}
	s := newStorage()
	s.onPublish = func(string) error { return fmt.Errorf("%w: no room for the mount", backends.ErrFailed) }
	failures, err := outcomes(t, s.config())
	if err != nil {
		t.Error(err)
	}
	if all := strings.Join(failures, "\n"); len(failures) == 0 || !strings.Contains(all, "no room for the mount") || !strings.Contains(all, "node.go:") {
		t.Errorf("failures: %s", all)
	}
}

// TestHungDriver: csi-sanity alone would wait for ever.
func TestHungDriver(t *testing.T) {
	if inChild(t) {
		return
	}
	hang := make(chan struct{})
	defer close(hang)
	var failures []string
	err := errors.New("not run")
	// On a busy machine a driver that does not hang may not answer in so short a time.
	for limit := 20 * time.Millisecond; err != nil && limit < time.Minute; limit *= 4 {
		s := newStorage()
		s.onCreate = func(context.Context, backends.CreateVolumeRequest) error { <-hang; return errors.New("late") }
		cfg := s.config()
		cfg.CallTimeout = limit
		cfg.Options.Drain = time.Millisecond
		if failures, err = outcomes(t, cfg); len(failures) > 0 {
			break
		}
	}
	if all := strings.Join(failures, "\n"); !strings.Contains(all, "DeadlineExceeded") && !strings.Contains(all, "Aborted") {
		t.Errorf("failures: %s", all)
	}
	if _, ok := errors.AsType[*csidriver.DrainError](err); !ok {
		t.Errorf("the driver was cut off in its work, and the run said %v", err)
	}
}

// TestTimeout: the time of the whole run.
func TestTimeout(t *testing.T) {
	if inChild(t) {
		return
	}
	s := newStorage()
	s.onCreate = func(ctx context.Context, _ backends.CreateVolumeRequest) error { <-ctx.Done(); return ctx.Err() }
	cfg := s.config()
	cfg.Timeout = 200 * time.Millisecond
	cfg.Options.Drain = time.Millisecond
	if failures, err := outcomes(t, cfg); len(failures) == 0 && err == nil {
		t.Error("the run was not cut")
	}
}

func TestNotReady(t *testing.T) {
	if inChild(t) {
		return
	}
	s := newStorage()
	s.notReady = true
	cfg := s.config()
	cfg.Timeout = 300 * time.Millisecond
	if _, err := outcomes(t, cfg); err == nil || !strings.Contains(err.Error(), "driver at unix:") {
		t.Errorf("run: %v", err)
	}
}

func TestConfigRefused(t *testing.T) {
	ok := newStorage().config()
	both := ok
	both.Endpoint = "/csi.sock"
	for name, c := range map[string]Config{
		"nothing": {}, "both": both, "scheme": {Endpoint: "http://x"}, "relative": {Endpoint: "unix:csi.sock"},
		"controller": {Endpoint: "/csi.sock", ControllerEndpoint: "x"}, "only controller": {ControllerEndpoint: "/csi.sock"},
	} {
		if err := c.complete(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := ok.complete(); err != nil || ok.Size != 1<<30 || ok.ExpandSize != 2<<30 || ok.Timeout == 0 || ok.CallTimeout == 0 {
		t.Errorf("defaults: %+v, %v", ok, err)
	}
}

func TestGivenFlags(t *testing.T) {
	set := flag.NewFlagSet("x", flag.ContinueOnError)
	set.String("endpoint", "", "")
	set.Bool("fast", false, "")
	set.Bool("test.v", false, "")
	set.Int("unset", 1, "")
	if err := set.Parse([]string{"-endpoint", "/a b", "-fast", "-test.v"}); err != nil {
		t.Fatal(err)
	}
	got := givenFlags(set, func(n string) bool { return strings.HasPrefix(n, "test.") })
	if strings.Join(got, "|") != "-endpoint=/a b|-fast=true" {
		t.Errorf("got %q", got)
	}
}
