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
		t.Errorf("%v (does the test reach sanity.Run when it is run alone?)", err)
		return // what was skipped in half a run says nothing
	}
	if cfg.SkipsFile != "" {
		if err := checkSkips(cfg.SkipsFile, specs, os.Getenv(updateEnv) != ""); err != nil {
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

// run starts the driver, has csi-sanity run, and ends the driver. Specs that
// fail are no error.
func run(t *testing.T, cfg *Config) (specs []Spec, err error) {
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	ctx, cancel := limited(t.Context(), cfg)
	defer cancel()
	if cfg.Endpoint == "" {
		stop, serr := startDriver(ctx, t, cancel, cfg)
		if serr != nil {
			return nil, serr
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	return against(ctx, t.TempDir(), cfg, childProcess{args: again(t.Name(), cfg.Timeout)})
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

// report makes a subtest of each spec.
func report(t *testing.T, specs []Spec) {
	t.Helper()
	for _, s := range specs {
		t.Run(s.Name, func(t *testing.T) {
			switch s.Outcome {
			case Passed:
				t.Logf("took %v", s.Took.Round(time.Millisecond))
			case Skipped:
				t.Skip(s.Message)
			default:
				t.Error(s.Message)
			}
		})
	}
}
