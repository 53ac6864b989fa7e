package sanity

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/csikit/csikit/sanity/internal/check"
	"github.com/csikit/csikit/sanity/internal/report"
)

// Run runs csi-sanity and the checks, and reports each as a subtest of t. It can
// be called any number of times in a process. See the package comment for what
// happens to the code before it.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	if inChild(t) {
		return
	}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	r, err := run(t, &cfg)
	if r != nil {
		subtests(t, r.Results)
	}
	if err != nil {
		t.Errorf("%v (does the test reach sanity.Run when it is run alone?)", err)
		return // what was skipped in half a run says nothing
	}
	if cfg.SkipsFile != "" && check.Selected(cfg.Only, csiSanity) {
		if err := checkSkips(cfg.SkipsFile, r.Results, os.Getenv(updateEnv) != ""); err != nil {
			t.Error(err)
		}
	}
}

// inChild runs csi-sanity, and ends the test, if this process was started for
// that. Whichever Run comes first does it: all that counts is in the order.
func inChild(t *testing.T) bool {
	was, err := obey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if was {
		t.SkipNow() // what comes after Run is for the first process
	}
	return was
}

// run starts the driver, tests it, and ends it. Checks that fail are no error.
func run(t *testing.T, cfg *Config) (r *Report, err error) {
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Reproduce == nil {
		cfg.Reproduce = func(id string) string { return "go test -run '" + pattern(t.Name()+"/"+id) + "'" }
	}
	inProcess := cfg.Endpoint == ""
	ctx, cancel := limited(t.Context(), cfg)
	defer cancel()
	if cfg.Endpoint == "" {
		stop, serr := startDriver(ctx, t, cancel, cfg)
		if serr != nil {
			return nil, serr
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	return against(ctx, t.TempDir(), cfg, inProcess, childProcess{args: again(t.Name(), cfg.Timeout), cfg: cfg, live: silent{}})
}

func limited(ctx context.Context, cfg *Config) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, cfg.Timeout, fmt.Errorf("sanity: not finished after %v", cfg.Timeout))
}

// again are the arguments with which this test binary runs a test, up to Run.
func again(test string, limit time.Duration) []string {
	args := []string{"-test.run=" + pattern(test), "-test.count=1", "-test.timeout=" + (limit + time.Minute).String(), "-test.short=" + strconv.FormatBool(testing.Short())}
	return append(args, givenFlags(flag.CommandLine, func(name string) bool { return strings.HasPrefix(name, "test.") })...)
}

// givenFlags are the flags of this process that are the program's own, so that
// the child's tests see them too.
func givenFlags(set *flag.FlagSet, isTest func(name string) bool) []string {
	var args []string
	set.Visit(func(f *flag.Flag) {
		if !isTest(f.Name) {
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	return args
}

// pattern is a -test.run that matches one test.
func pattern(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

// subtests makes a subtest of each result.
func subtests(t *testing.T, results []Result) {
	t.Helper()
	for _, r := range results {
		t.Run(r.ID, func(t *testing.T) {
			switch r.Verdict {
			case Fail:
				t.Error(report.Text(&r))
			case Warn:
				t.Log("WARN: " + report.Text(&r))
			case Pass:
				t.Logf("took %v", r.Took.Round(time.Millisecond))
			default:
				t.Skip(string(r.Verdict) + ": " + r.Message)
			}
		})
	}
}
