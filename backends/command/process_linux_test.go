package command

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// A real process that SIGKILL does not end: cgroup v1's freezer holds it in the
// kernel, as storage that does not answer would.
func TestFrozenProcess(t *testing.T) {
	testenv.Root(t)
	cg := "/sys/fs/cgroup/freezer/csikit-test-" + strconv.Itoa(os.Getpid())
	if err := os.Mkdir(cg, 0o755); err != nil {
		t.Skipf("missing: a writable cgroup v1 freezer: %v", err)
	}
	state := func(s string) {
		if err := os.WriteFile(filepath.Join(cg, "freezer.state"), []byte(s), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		state("THAWED")
		eventually(t, "the cgroup is empty", func() bool { return os.Remove(cg) == nil })
	})
	tool := script(t, `echo 0 >"$CG/cgroup.procs"; echo up >"$0.$1"; exec sleep 1000`)
	r := New(&Options{Grace: time.Millisecond, Reap: 50 * time.Millisecond, MaxStuck: 1})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		readLine(t, tool+".first")
		state("FROZEN")
		cancel()
	}()
	cmd := Cmd{Path: tool, Args: []string{"first"}, Vars: map[string]string{"CG": cg}}
	_, err := r.Run(ctx, cmd)
	var exit *ExitError
	if !errors.As(err, &exit) || !exit.Stuck {
		t.Fatalf("got %v", err)
	}
	cmd.Args = []string{"second"}
	if _, err := r.Run(t.Context(), cmd); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	state("THAWED")
	eventually(t, "the breaker closes", func() bool { return len(r.Stuck()) == 0 })
	cmd.Idle, r.reap = 50*time.Millisecond, time.Minute // what can be killed has time to end
	if _, err := r.Run(t.Context(), cmd); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// Progress is seen in a process that waits, in one that only computes and in one
// that only does I/O, also when it is a child of the tool.
func TestProgress(t *testing.T) {
	for name, text := range map[string]string{
		"computes": `while :; do :; done`,
		"does I/O": `exec dd if=/dev/zero of=/dev/null bs=1 2>/dev/null`,
		"a child":  `while :; do :; done & wait`,
	} {
		t.Run(name, func(t *testing.T) {
			p := startTool(t, `read line; `+text)
			g := &progress{p: p.process}
			g.made()
			eventually(t, "no progress while it waits", func() bool { return !g.made() })
			p.say("go\n")
			for range 3 {
				eventually(t, "progress while it works", g.made)
			}
		})
	}
}

type startedTool struct {
	*process
	say func(string)
}

// startTool starts a tool whose end the test's cleanup brings.
func startTool(t *testing.T, text string) startedTool {
	t.Helper()
	in, say := io.Pipe()
	c := Cmd{Path: script(t, text), Stdin: in}
	p, err := New(nil).start(c.Path, c, newRedactor(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		_ = say.Close()
		eventually(t, "the group is gone", p.gone)
		p.reap()
	})
	return startedTool{p, func(s string) { _, _ = io.WriteString(say, s) }}
}

// CPU time and I/O are read separately: a shell that spins does no I/O, and dd
// would be seen by its CPU time alone.
func TestParseStat(t *testing.T) {
	m, pgrp, ok := parseStat("42 (a) Z (x)) D 1 40 40 0 -1 4194304 1 2 3 4 511 612 0 0 20 0 1 0 98765 0 0 0\n")
	if !ok || pgrp != 40 || m.state != 'D' || m.cpu != "511 612" || m.start != "98765" {
		t.Errorf("got %+v %d %v", m, pgrp, ok)
	}
	for _, s := range []string{"", "42 (a", "42 (a) D 1 x 40", strings.Repeat("1 ", 30)} {
		if _, _, ok := parseStat(s); ok {
			t.Errorf("%q parsed", s)
		}
	}
}

// The file is only the child's: it has no name, and cannot be written.
func TestSecretFile(t *testing.T) {
	tool := script(t, `cat "$1"; echo; (cat "$1"); echo x 1<>"$1"`)
	before := openFiles()
	res, err := New(nil).Run(t.Context(), Cmd{Path: tool, Args: []string{"{file:k}"}, Files: map[string]backends.Secret{"k": backends.NewSecret("once")}})
	var exit *ExitError
	if !errors.As(err, &exit) || string(res.Stdout) != "once\nonce" {
		t.Errorf("got %q, %v", res.Stdout, err)
	}
	if after := openFiles(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
