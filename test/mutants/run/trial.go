package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/csikit/csikit/sanity"
	"github.com/csikit/csikit/test/mutants"
)

// trial runs the harness against mutants.
type trial struct {
	driver   string // the program
	dir      string
	thorough bool
	soft     map[string]bool // clauses that are no MUST: WARN is what they can get
	before   record          // what caught them last time
}

// outcome is what the harness said of a mutant.
type outcome struct {
	m      mutants.Mutant
	by     string // check that caught it; "": none
	as     sanity.Verdict
	right  bool     // the check is of one of its clauses
	proved []string // its clauses that the check is of
	again  string   // the check that shows it: by looks at the answers that others get
	why    string
	failed []string // of a variant
	took   time.Duration
	err    error
}

// good tells whether the harness was right.
func (o *outcome) good() bool {
	if o.m.Class == mutants.Valid {
		return o.err == nil && len(o.failed) == 0
	}
	return o.by != "" && o.right
}

func (o *outcome) summary() string {
	switch {
	case o.m.Class == mutants.Valid && o.good():
		return "no FAIL"
	case o.m.Class == mutants.Valid:
		return "WRONG " + strings.Join(o.failed, " ") + " " + text(o.err)
	case o.by == "":
		return "SURVIVES " + text(o.err)
	case !o.right:
		return "caught by " + o.by + ", WITHOUT THE CLAUSE"
	}
	return "caught by " + o.by
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

// try runs one mutant.
func (t *trial) try(ctx context.Context, m mutants.Mutant) (o outcome) {
	begun := time.Now()
	o.m = m
	defer func() { o.took = time.Since(begun) }()
	if ctx.Err() != nil {
		o.err = ctx.Err()
		return o
	}
	if m.Class == mutants.Valid {
		t.valid(ctx, &o)
		return o
	}
	if id := t.before[m.Name].again; id != "" {
		t.pass(ctx, &o, []string{id}, false)
	}
	if ids := ofClauses(m.Clauses); !o.good() && len(ids) > 0 {
		o.err = nil
		t.pass(ctx, &o, ids, false)
	}
	if !o.good() && t.thorough && m.Base == mutants.Mem { // it takes seconds there, and minutes on loop devices
		o.err = nil
		t.pass(ctx, &o, []string{"H"}, false) // some only look at what the others get
	}
	return o
}

// ofClauses are the checks that prove one of these.
func ofClauses(clauses []string) []string {
	var ids []string
	for _, c := range sanity.Checks() {
		if overlap(c.Clauses, clauses) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// both are those of a that b has too.
func both(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return !slices.Contains(b, s) })
}

// valid runs everything against a driver without a fault.
func (t *trial) valid(ctx context.Context, o *outcome) {
	block := slices.Contains([]string{"variant-loop", "variant-block-only"}, o.m.Name) // the reference is mounted
	t.pass(ctx, o, nil, block)
}

// pass runs some checks against a new driver, until one has caught it.
func (t *trial) pass(ctx context.Context, o *outcome, only []string, block bool) {
	dir, err := os.MkdirTemp(t.dir, "m")
	if err != nil {
		o.err = err
		return
	}
	defer func() {
		if err := mutants.Tidy(dir); err != nil {
			o.err = errors.Join(o.err, err)
		}
	}()
	p, err := newProcess(t.driver, dir, o.m.Name)
	if err != nil {
		o.err = err
		return
	}
	defer p.stop()
	if err := p.start(ctx); err != nil {
		o.err = err
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &listener{o: o, soft: t.soft, cancel: cancel}
	_, err = sanity.Check(ctx, t.config(o.m, p, dir, only, block), l)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && !l.caught {
		o.err = errors.Join(o.err, err)
	}
}

// config is what an author would give for such a driver.
func (t *trial) config(m mutants.Mutant, p *process, dir string, only []string, block bool) sanity.Config {
	cfg := sanity.Config{
		Endpoint: "unix://" + p.socket, Only: only, Many: 200, Reproduce: func(id string) string { return id },
		Secrets: map[string]string{"password": "not-to-be-seen"},
		Logs:    func() ([]byte, error) { return os.ReadFile(p.log) }, Dir: dir,
		Timeout: 2 * time.Minute, CallTimeout: 8 * time.Second,
		Block: block || m.Block,
	}
	if m.Class == mutants.Valid {
		cfg.Timeout, cfg.CallTimeout, cfg.Many = 6*time.Minute, 30*time.Second, 0
		if m.Name == "variant-slow" {
			cfg.Many = 40
		}
		if m.Name == "variant-split" {
			cfg.Endpoint, cfg.ControllerEndpoint = mutants.NodeEndpoint(cfg.Endpoint), cfg.Endpoint
		}
	}
	if m.Base == mutants.Loop {
		cfg.Size, cfg.Restart = 320<<20, p.restart
		cfg.Secrets = nil // a pool has no use for some
		return cfg
	}
	if m.Name != "variant-minimal" {
		cfg.Parameters = map[string]string{"media": "disk"}
		cfg.MutableParameters = map[string]string{"tier": "fast"}
		cfg.AttachLimit = m.Class != mutants.Valid
	}
	return cfg
}

// listener ends a run when it knows enough.
type listener struct {
	soft   map[string]bool
	cancel func()

	mu     sync.Mutex
	o      *outcome
	caught bool
}

func (l *listener) Begin(string) {}

// End is told of each check.
func (l *listener) End(r sanity.Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.o.m.Class == mutants.Valid {
		if r.Verdict == sanity.Fail {
			l.o.failed = append(l.o.failed, r.ID)
			l.o.why += fmt.Sprintf("%s: %s; ", r.ID, r.Message)
		}
		return
	}
	if l.caught {
		return
	}
	of := r.Broken
	if len(of) == 0 {
		of = r.Clauses
	}
	right := overlap(of, l.o.m.Clauses)
	switch {
	case r.Verdict == sanity.Fail && right, r.Verdict == sanity.Warn && right && l.allSoft(of):
		l.o.by, l.o.as, l.o.right, l.o.why, l.caught = r.ID, r.Verdict, true, r.Message, true
		l.o.again, l.o.proved = r.Reproduce, both(l.o.m.Clauses, slices.Concat(r.Broken, r.Clauses))
		l.cancel()
	case r.Verdict == sanity.Fail && l.o.by == "":
		l.o.by, l.o.as, l.o.why = r.ID, r.Verdict, fmt.Sprintf("(%s) %s", strings.Join(of, " "), r.Message)
	}
}

// allSoft tells whether what is broken, of this mutant, is no MUST, or may be right.
func (l *listener) allSoft(of []string) bool {
	return l.o.m.Unsure || !slices.ContainsFunc(of, func(c string) bool { return slices.Contains(l.o.m.Clauses, c) && !l.soft[c] })
}

// readStrengths reads which clauses are a SHOULD or a MAY.
func readStrengths(file string) (map[string]bool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	soft := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) < 3 {
			continue
		}
		soft[f[0]] = strings.HasPrefix(f[2], "SHOULD") || f[2] == "MAY"
	}
	return soft, nil
}
