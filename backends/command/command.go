package command

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
)

const (
	defaultIdle     = 2 * time.Minute
	defaultGrace    = 3 * time.Second
	defaultReap     = 3 * time.Second
	defaultMaxStuck = 3
	defaultOutput   = 64 << 10
	minOutput       = 8 << 10 // the end of it, which errors show, is found whole and scrubbed
)

// Cmd is one run of a tool.
type Cmd struct {
	Path string   // a bare name, looked up in Options.Path, or an absolute path
	Args []string // without the name of the program; "{file:NAME}" stands for the path of Files[NAME]

	Vars  map[string]string          // environment that is no secret
	Env   backends.Secrets           // environment that is
	Stdin io.Reader                  // nil: empty. May hold secrets: it is not logged
	Files map[string]backends.Secret // each a file that only the tool sees (Linux; elsewhere ErrUnsupported)
	Dir   string                     // "": the root directory
	// Hold are open files of which the tool gets a copy each, for the
	// locks on them (flock): those last as long as the tool does, which outlives
	// this process when that is killed.
	Hold []*os.File

	// Timeout ends the tool although it makes progress; 0: never.
	Timeout time.Duration
	// Idle ends a tool that for so long wrote nothing and, on Linux, used no CPU
	// time and did no I/O in any process of its group; 0: two minutes.
	Idle time.Duration
	// MaxOutput bounds what is kept of each of the two outputs, half of the
	// beginning and half of the end; 0: 64 KiB, and never less than 8. A list that is parsed wants more,
	// and a look at Result.Truncated.
	MaxOutput int
	// Scope says what hangs together, such as a server or a volume group: stuck
	// processes count for one Path and one Scope.
	Scope string
}

// Result is what a tool did. It is filled as far as known when there is an
// error, too. The outputs are as the tool wrote them: unlike the error they may
// hold secrets.
type Result struct {
	Stdout, Stderr []byte
	Truncated      bool // one of the two is not whole
	Code           int  // exit code; -1: ended by a signal, stuck, or never started
	Elapsed        time.Duration
}

// Event is one finished run, for metrics.
type Event struct {
	Context context.Context // that Run was called with
	Path    string          // as in Cmd
	Code    int
	Elapsed time.Duration
	Err     error // as Run returned it
}

// Options of a [Runner]. The zero value of each field is a sensible default.
type Options struct {
	Logger   *slog.Logger  // nil: no logs. Runs are logged at Debug, stuck processes at Warn
	Path     string        // where tools are; "": PATH of this process, and the usual system directories
	Grace    time.Duration // between SIGTERM and SIGKILL; 0: 3 s
	Reap     time.Duration // how long to wait for a killed process before it counts as stuck; 0: 3 s
	MaxStuck int           // so many stuck processes of one Path and Scope refuse further runs; 0: 3
	Observer func(Event)   // nil ok; called from Run
}

// Runner runs tools and knows which of them are stuck. It is safe for
// concurrent use; a driver has one.
type Runner struct {
	log      *slog.Logger
	path     string
	grace    time.Duration
	reap     time.Duration
	observe  func(Event)
	breaker  breaker
	kill     func(pgid int, sig syscall.Signal) error // syscall.Kill on the group; tests put in one that does not help
	pollStep time.Duration                            // first interval at which a killed group is looked at
}

// New makes a Runner; nil options are the defaults.
func New(o *Options) *Runner {
	if o == nil {
		o = &Options{}
	}
	r := &Runner{
		log:      o.Logger,
		path:     o.Path,
		grace:    orDefault(o.Grace, defaultGrace),
		reap:     orDefault(o.Reap, defaultReap),
		observe:  o.Observer,
		kill:     func(pgid int, sig syscall.Signal) error { return syscall.Kill(-pgid, sig) },
		pollStep: 5 * time.Millisecond,
	}
	r.breaker.max = orDefault(o.MaxStuck, defaultMaxStuck)
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.path == "" {
		r.path = searchPath(os.Getenv("PATH"))
	}
	if r.observe == nil {
		r.observe = func(Event) {}
	}
	return r
}

func orDefault[T int | time.Duration](v, d T) T {
	if v > 0 {
		return v
	}
	return d
}

// Run runs a tool to its end. A code other than 0, a signal, and a tool that was
// ended because of ctx, Timeout or Idle are an [*ExitError], in which errors.Is
// finds the reason: context.DeadlineExceeded for the two deadlines, the error
// and the cause of ctx when that ended. A tool that is missing is a
// [*NotInstalledError]. With a ctx that has ended before, nothing is run.
//
// While a tool runs, the stall clock of ctx's operation (backends.Busy) stands:
// the tool has its own.
func (r *Runner) Run(ctx context.Context, c Cmd) (Result, error) {
	start := time.Now()
	red := newRedactor(c)
	argv := red.argv(c.Path, c.Args)
	res, err := r.run(ctx, c, argv, red)
	res.Elapsed = time.Since(start)
	r.log.LogAttrs(ctx, slog.LevelDebug, "command", slog.String("argv", argv), slog.Int("code", res.Code),
		slog.Duration("elapsed", res.Elapsed), slog.Any("error", err))
	r.observe(Event{Context: ctx, Path: c.Path, Code: res.Code, Elapsed: res.Elapsed, Err: err})
	return res, err
}

func (r *Runner) run(ctx context.Context, c Cmd, argv string, red *redactor) (Result, error) {
	none := Result{Code: -1}
	if cause := ctxCause(ctx); cause != nil {
		return none, &startError{argv, cause}
	}
	if err := check(c, red); err != nil {
		return none, &startError{argv, err}
	}
	path, err := r.lookPath(c.Path)
	if err != nil {
		return none, err
	}
	key := breakerKey{path, c.Scope}
	if err := r.breaker.allow(key); err != nil {
		return none, &startError{argv, err}
	}
	defer backends.Busy(ctx, filepath.Base(path))()
	p, err := r.start(path, c, red)
	if err != nil {
		return none, &startError{argv, err}
	}
	cause := watch(ctx, p.zombie, (&progress{p: p}).made, orDefault(c.Idle, defaultIdle), c.Timeout)
	stuck := false
	if cause == nil {
		p.reap()
	} else if stuck = !r.end(p); stuck {
		r.giveUp(ctx, p, key, argv)
	}
	return p.outcome(argv, red, cause, stuck)
}

// Stuck lists the processes that were killed and did not die, oldest first.
func (r *Runner) Stuck() []Stuck { return r.breaker.list() }

// searchPath adds the directories of system tools to PATH: a service or an
// unprivileged user often has no sbin in it. Relative entries are dropped.
func searchPath(env string) string {
	var dirs []string
	seen := map[string]bool{}
	system := []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	for _, d := range append(filepath.SplitList(env), system...) {
		if filepath.IsAbs(d) && !seen[d] {
			seen[d] = true
			dirs = append(dirs, d)
		}
	}
	return strings.Join(dirs, string(filepath.ListSeparator))
}
