package crash

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

const envCrash = "CSIKIT_CRASH"

// TestMatrix kills the driver in every RPC. What it does by CSIKIT_CRASH:
//
//	""                       a sample: of each scenario a fault point and a system call
//	all                      every case, and prints the table
//	PREFIX*                  every case of the scenarios whose name begins so
//	SCENARIO|KILL|RUN        one case, as a finding names it
func TestMatrix(t *testing.T) {
	t.Parallel()
	b := newBench(t, build(t, ""))
	m := &matrix{b: b, what: os.Getenv(envCrash), slots: make(chan struct{}, runtime.NumCPU()+1)}
	m.run(t)
	for _, r := range m.rows {
		for _, f := range r.findings {
			t.Error(f)
		}
	}
	switch {
	case len(m.rows) == 0:
		t.Errorf("%s=%q: no such scenario", envCrash, m.what)
	case m.what == "" || m.what == "all":
		m.everyName(t)
		m.everyoneDied(t)
	}
	if m.table() {
		printTable(m.rows)
	}
}

// matrix is one run over scenarios.
type matrix struct {
	b     *bench
	what  string
	slots chan struct{} // cases at once
	rows  []*row
}

// row is the sum of a scenario.
type row struct {
	s           *scenario
	ref         *reference
	cases, died int
	ok, played  map[string]int // by run

	mu       sync.Mutex
	findings []string
}

// table: everything is played, and said.
func (m *matrix) table() bool { return m.what == "all" || strings.HasSuffix(m.what, "*") }

// wants says whether a scenario is asked for, and if only one case of it is, which.
func (m *matrix) wants(s *scenario) (one string, yes bool) {
	if one, yes = strings.CutPrefix(m.what, s.name+"|"); yes {
		return one, true
	}
	prefix, some := strings.CutSuffix(m.what, "*")
	return "", m.what == "" || m.what == "all" || some && strings.HasPrefix(s.name, prefix)
}

// run plays what is asked for: cases, and scenarios, side by side.
func (m *matrix) run(t *testing.T) {
	var wg sync.WaitGroup
	few := make(chan struct{}, cap(m.slots))
	for i, s := range scenarios() {
		one, yes := m.wants(s)
		if !yes {
			continue
		}
		r := newRow(s)
		m.rows = append(m.rows, r)
		few <- struct{}{}
		wg.Go(func() {
			defer func() { <-few }()
			m.scenario(t, r, i, one)
		})
	}
	wg.Wait()
}

func (m *matrix) scenario(t *testing.T, r *row, i int, one string) {
	var err error
	m.slots <- struct{}{}
	r.ref, err = m.b.refer(t.Context(), r.s, m.table())
	<-m.slots
	if err != nil {
		r.findings = append(r.findings, err.Error())
		return
	}
	cases, err := m.cases(r, i, one)
	if err != nil {
		r.findings = append(r.findings, err.Error())
	}
	var wg sync.WaitGroup
	for _, c := range cases {
		m.slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-m.slots }()
			died, err := c.play(t.Context(), m.b, r.ref)
			r.sum(c, died, err)
		})
	}
	wg.Wait()
	if !m.table() {
		return
	}
	fmt.Printf("%s %s: %d cases, %d findings\n", time.Now().Format(time.TimeOnly), r.s.name, r.cases, len(r.findings))
	for _, f := range r.findings {
		fmt.Println(f)
	}
}

// cases are those of a scenario: one, all, or a sample.
func (m *matrix) cases(r *row, i int, one string) ([]kase, error) {
	s, ref := r.s, r.ref
	if one != "" {
		where, run, _ := strings.Cut(one, "|")
		k, err := parseKill(where)
		return []kase{{s, k, run}}, err
	}
	runs := []string{retry, undo, loops}
	if m.what == "" {
		calls := []string{"fsync", "renameat", "openat"}
		point := ref.points[(i*7+3)%len(ref.points)]
		return []kase{{s, point, runs[i%3]}, {s, kill{call: calls[i%3], n: 1 + i%2}, runs[(i+1)%3]}}, nil
	}
	var all []kase
	for _, kills := range [][]kill{ref.points, ref.syscalls, ref.tools} {
		for _, k := range kills {
			for _, run := range runs {
				all = append(all, kase{s, k, run})
			}
		}
	}
	return all, nil
}

func (r *row) sum(c kase, died bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cases++
	r.played[c.run]++
	if died {
		r.died++
	}
	if err == nil {
		r.ok[c.run]++
		return
	}
	r.findings = append(r.findings, fmt.Sprintf("%s (died %v): %v\n\tagain: %s='%s' go test -count=1 -run '^TestMatrix$' ./test/crash",
		c, died, err, envCrash, c))
}

// everyoneDied: a matrix in which nobody is killed proves nothing.
func (m *matrix) everyoneDied(t *testing.T) {
	for _, r := range m.rows {
		if r.died == 0 && len(r.findings) == 0 {
			t.Errorf("%s: the driver never died", r.s.name)
		}
	}
}

func printTable(rows []*row) {
	sum := newRow(nil)
	sum.ref = &reference{}
	fmt.Printf("%-46s %6s %8s %5s %6s %6s %11s %11s %11s\n",
		"RPC", "points", "syscalls", "tools", "cases", "died", "retried ok", "undone ok", "looped ok")
	line := func(name string, r *row) {
		fmt.Printf("%-46s %6d %8d %5d %6d %6d", name, len(r.ref.points), len(r.ref.syscalls), len(r.ref.tools), r.cases, r.died)
		for _, run := range []string{retry, undo, loops} {
			fmt.Printf(" %11s", fmt.Sprintf("%d/%d", r.ok[run], r.played[run]))
		}
		fmt.Println()
	}
	for _, r := range rows {
		if r.ref == nil {
			fmt.Printf("%-46s not played\n", r.s.name)
			continue
		}
		line(r.s.name, r)
		sum.cases, sum.died = sum.cases+r.cases, sum.died+r.died
		sum.ref.points = append(sum.ref.points, r.ref.points...)
		sum.ref.syscalls = append(sum.ref.syscalls, r.ref.syscalls...)
		sum.ref.tools = append(sum.ref.tools, r.ref.tools...)
		for run, n := range r.played {
			sum.played[run] += n
			sum.ok[run] += r.ok[run]
		}
	}
	line("all", sum)
}

func newRow(s *scenario) *row {
	return &row{s: s, ok: map[string]int{}, played: map[string]int{}}
}
