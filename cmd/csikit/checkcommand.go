package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/cmd/csikit/internal/walk"
	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/sanity"
)

// checkFlags are those of csikit check.
type checkFlags struct {
	*endpointFlags
	json, junit, html string
	restart, log      string
	clauses           bool
	noData            bool
	failFast          bool
	only              []string
	many              int
	otherNode         string
	attachLimit       bool
	seed              uint64
	restarts          restarts
}

func newCheckFlags() *checkFlags {
	f := &checkFlags{endpointFlags: newEndpointFlags("check")}
	f.set.StringVar(&f.json, "json", "", "")
	f.set.StringVar(&f.junit, "junit", "", "")
	f.set.StringVar(&f.html, "html", "", "")
	f.set.StringVar(&f.restart, "restart", "", "")
	f.set.StringVar(&f.log, "log", "", "")
	f.set.BoolVar(&f.clauses, "clauses", false, "")
	f.set.BoolVar(&f.noData, "no-data", false, "")
	f.set.BoolVar(&f.failFast, "fail-fast", false, "")
	f.set.IntVar(&f.many, "many", 0, "")
	f.set.StringVar(&f.otherNode, "other-node", "", "")
	f.set.BoolVar(&f.attachLimit, "attach-limit", false, "")
	f.set.Uint64Var(&f.seed, "seed", 0, "")
	f.set.Func("only", "", func(s string) error {
		for o := range strings.SplitSeq(s, ",") {
			f.only = append(f.only, strings.TrimSpace(o))
		}
		return nil
	})
	return f
}

// config is what the flags say.
func (f *checkFlags) config() (sanity.Config, error) {
	cfg := sanity.Config{
		Endpoint: f.endpoint, Block: f.block, Parameters: f.parameters, MutableParameters: f.mutable, Secrets: f.secrets,
		Size: f.size, Timeout: f.timeout, Only: f.only, FailFast: f.failFast, Many: f.many, Seed: f.seed, Reproduce: f.reproduce,
		OtherNode: f.otherNode, AttachLimit: f.attachLimit,
	}
	if f.node != "" {
		cfg.Endpoint, cfg.ControllerEndpoint = f.node, f.endpoint
	}
	if f.noData {
		cfg.Host = "no"
	}
	if f.restart != "" {
		cfg.Restart = f.runRestart
	}
	if f.log != "" {
		cfg.Logs = func() ([]byte, error) { return os.ReadFile(f.log) }
	}
	if f.dir == "" {
		return cfg, nil
	}
	dir, err := filepath.Abs(f.dir)
	cfg.Dir = dir
	return cfg, err
}

// runRestart runs the command that restarts the driver. It is no shell's line: what
// needs a shell is a script.
func (f *checkFlags) runRestart(ctx context.Context) error {
	words := strings.Fields(f.restart) // there are some: see usable
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.WaitDelay = 5 * time.Second // a driver that it starts may hold on to its output
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		f.restarts.err = fmt.Errorf("%s: %w\n%s", f.restart, err, out)
		return f.restarts.err
	}
	f.restarts.worked = true
	return nil
}

// reproduce is the command line that runs one check again.
func (f *checkFlags) reproduce(id string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "csikit check --endpoint %s", quote(csiclient.Endpoint(f.endpoint)))
	for _, o := range []struct{ name, value string }{
		{"node-endpoint", csiclient.Endpoint(f.node)}, {"parameters", joinPairs(f.parameters)}, {"mutable-parameters", joinPairs(f.mutable)},
		{"secrets", f.secretFile}, {"dir", f.dir}, {"restart", f.restart}, {"log", f.log}, {"other-node", f.otherNode},
	} {
		if o.value != "" {
			fmt.Fprintf(&b, " --%s %s", o.name, quote(o.value))
		}
	}
	if f.block {
		b.WriteString(" --access block")
	}
	if f.size != 1<<30 {
		fmt.Fprintf(&b, " --size %d", f.size)
	}
	if f.noData {
		b.WriteString(" --no-data")
	}
	if f.attachLimit {
		b.WriteString(" --attach-limit")
	}
	fmt.Fprintf(&b, " --only %s", quote(id))
	return b.String()
}

// check tests a driver that somebody else runs.
func check(ctx context.Context, args []string, out io.Writer) error {
	f := newCheckFlags()
	if slices.Contains(args, "-clauses") || slices.Contains(args, "--clauses") {
		printClauses(out)
		return nil
	}
	if err := f.parse(args); err != nil {
		return err
	}
	if err := f.usable(); err != nil {
		return err
	}
	cfg, err := f.config()
	if err != nil {
		return err
	}
	if err := cfg.Check(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	files, err := createAll(f.json, f.junit, f.html) // before the run: it may take minutes
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	r, err := f.runChecks(ctx, cfg, out)
	r.Command = f.reproduce("")
	if errors.Is(err, errUsage) {
		return errors.Join(err, files.discard())
	}
	if err = errors.Join(err, f.restarts.trouble()); err != nil {
		r.Trouble = err.Error()
		fmt.Fprintf(out, "FAIL  the run: %s\n", walk.Printable(err.Error()))
	}
	summary(out, r)
	return errors.Join(writeFile(files.files[0], r.WriteJSON), writeFile(files.files[1], r.WriteJUnit), writeFile(files.files[2], f.writeHTML(r)), outcome(r))
}

// outcome is the exit code: 1 for what failed, 2 when nothing could be run.
func outcome(r *sanity.Report) error {
	switch {
	case r.Trouble != "" && len(r.Results) == 0:
		return errNotRun
	case !r.OK():
		return errSaid
	case r.Count(sanity.NotRun) == len(r.Results):
		return errNotRun
	}
	return nil
}

func (f *checkFlags) writeHTML(r *sanity.Report) func(io.Writer) error {
	return func(w io.Writer) error { return r.WriteHTML(w, clauseWords) }
}

// runChecks waits for the driver, which may be about to start, and tests it.
func (f *checkFlags) runChecks(ctx context.Context, cfg sanity.Config, out io.Writer) (*sanity.Report, error) {
	for _, target := range []string{f.endpoint, f.node} {
		if target == "" {
			continue
		}
		conn, err := f.dial(ctx, out, target)
		if status.Code(err) == codes.Unimplemented {
			continue // it answers: that it has no Probe is a result
		}
		if err != nil {
			return nobody(f), err
		}
		if target == f.endpoint {
			err = f.refusesParameters(ctx, conn)
		}
		if err := errors.Join(err, conn.Close()); err != nil {
			return nobody(f), err
		}
	}
	r, err := sanity.Check(ctx, cfg, newLines(out))
	if r == nil {
		r = nobody(f)
	}
	return r, err
}

// nobody is the report of a driver that does not answer.
func nobody(f *checkFlags) *sanity.Report {
	r := &sanity.Report{Endpoint: csiclient.Endpoint(f.endpoint), NodeEndpoint: csiclient.Endpoint(f.node), Access: f.access, Started: time.Now()}
	r.End()
	return r
}
