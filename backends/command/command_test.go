package command

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

func TestRun(t *testing.T) {
	tool := script(t, `pwd; cat; echo warned >&2; exec env`)
	var events []Event
	r := New(&Options{Path: "/usr/bin:/bin", Observer: func(e Event) { events = append(events, e) }})
	res, err := r.Run(t.Context(), Cmd{
		Path: tool, Vars: map[string]string{"A": "1"}, Env: backends.NewSecrets(map[string]string{"B": "2"}),
		Stdin: strings.NewReader("typed\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(res.Stdout))
	slices.Sort(lines)
	// The shell itself adds PWD, and some add more of their own.
	lines = slices.DeleteFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, "PWD=") || strings.HasPrefix(l, "SHLVL=") || strings.HasPrefix(l, "_=") || strings.HasPrefix(l, "OLDPWD")
	})
	if want := []string{"/", "A=1", "B=2", "LC_ALL=C", "PATH=/usr/bin:/bin", "typed"}; !slices.Equal(lines, want) {
		t.Errorf("stdout: got %q, want %q", lines, want)
	}
	if string(res.Stderr) != "warned\n" || res.Code != 0 || res.Truncated || res.Elapsed <= 0 {
		t.Errorf("got %+v", res)
	}
	if len(events) != 1 || events[0] != (Event{Context: t.Context(), Path: tool, Elapsed: res.Elapsed}) {
		t.Errorf("observed %+v", events)
	}
}

func TestExitCode(t *testing.T) {
	tool := script(t, `echo no answer; [ "$1" = both ] && printf 'first\n\033[31mbad block\r\n' >&2; exit 3`)
	r := New(nil)
	for arg, want := range map[string]string{"both": "first\n [31mbad block", "out": "no answer"} {
		res, err := r.Run(t.Context(), Cmd{Path: tool, Args: []string{arg}})
		var exit *ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("got %v", err)
		}
		if exit.Code != 3 || res.Code != 3 || exit.Stderr != want || exit.Argv != tool+" "+arg || exit.Cause != nil || exit.Stuck {
			t.Errorf("got %+v, code %d", exit, res.Code)
		}
		if want := tool + " " + arg + ": exit status 3: " + strings.ReplaceAll(want, "\n", "; "); err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
	}
	res, err := r.Run(t.Context(), Cmd{Path: script(t, `kill -9 $$`)})
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != -1 || res.Code != -1 || exit.Signal != "killed" {
		t.Errorf("got %v", err)
	}
}

// recorder is a backends.Activity that writes down what it is told.
type recorder struct {
	steps []string
	busy  int
}

func (a *recorder) Progress(step string) { a.steps = append(a.steps, step) }
func (a *recorder) Busy(step string) func() {
	a.steps = append(a.steps, step)
	a.busy++
	return func() { a.busy-- }
}

func TestBusyWhileRunning(t *testing.T) {
	act := &recorder{}
	if _, err := New(nil).Run(backends.WithActivity(t.Context(), act), Cmd{Path: script(t, "exit 0")}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(act.steps, []string{"tool"}) || act.busy != 0 {
		t.Errorf("got %+v", act)
	}
}

func TestRefused(t *testing.T) {
	tool := script(t, `touch "$0.ran"`)
	secret := backends.NewSecrets(map[string]string{"PASS": "sesame"})
	key := map[string]backends.Secret{"key": backends.NewSecret("sesame")}
	for name, c := range map[string]Cmd{
		"NUL in an argument":  {Path: tool, Args: []string{"a\x00b"}},
		"NUL in a variable":   {Path: tool, Vars: map[string]string{"A": "a\x00b"}},
		"a relative path":     {Path: "./tool"},
		"no path":             {},
		"LD_PRELOAD":          {Path: tool, Env: backends.NewSecrets(map[string]string{"LD_PRELOAD": "/x"})},
		"another PATH":        {Path: tool, Vars: map[string]string{"PATH": "/x"}},
		"no variable's name":  {Path: tool, Vars: map[string]string{"A=B": "x"}},
		"secret as argument":  {Path: tool, Args: []string{"-p", "sesame"}, Env: secret},
		"secret after a key":  {Path: tool, Args: []string{"pin=sesame"}, Env: secret},
		"secret file's text":  {Path: tool, Args: []string{"{file:key}", "sesame"}, Files: key},
		"file nobody uses":    {Path: tool, Files: key},
		"file nobody gave":    {Path: tool, Args: []string{"{file:other}"}},
		"missing directory":   {Path: tool, Dir: filepath.Join(filepath.Dir(tool), "none")},
		"not executable":      {Path: "/etc/passwd"},
		"directory as a tool": {Path: "/etc"},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := New(nil).Run(t.Context(), c)
			if err == nil || res.Code != -1 {
				t.Fatalf("got %v, code %d", err, res.Code)
			}
			if strings.Contains(err.Error(), "sesame") {
				t.Errorf("secret in %v", err)
			}
		})
	}
	if _, err := os.Stat(tool + ".ran"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it ran: %v", err)
	}
}

func TestNotInstalled(t *testing.T) {
	r := New(&Options{Path: t.TempDir()})
	_, err := r.Run(t.Context(), Cmd{Path: "mkfs.xfs", Args: []string{"/dev/null"}})
	var missing *NotInstalledError
	if !errors.As(err, &missing) || missing.Tool != "mkfs.xfs" || missing.Package != "xfsprogs" {
		t.Fatalf("got %v", err)
	}
	if !errors.Is(err, exec.ErrNotFound) || !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrNotFound) {
		t.Errorf("wrong kind: %v", err)
	}
	if want := "mkfs.xfs is not installed on this node (Debian package xfsprogs)"; err.Error() != want {
		t.Errorf("got %q", err)
	}
}

func TestSearchPath(t *testing.T) {
	got := searchPath("/opt/bin:.::relative:/usr/bin:/opt/bin")
	if want := "/opt/bin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOutputIsBounded(t *testing.T) {
	tool := script(t, `echo first; i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done; echo last`)
	res, err := New(nil).Run(t.Context(), Cmd{Path: tool, MaxOutput: 10000})
	if err != nil {
		t.Fatal(err)
	}
	s := string(res.Stdout)
	if !res.Truncated || len(s) > 10100 || !strings.HasPrefix(s, "first\n") || !strings.HasSuffix(s, "line 19999\nlast\n") || !strings.Contains(s, "bytes left out") {
		t.Errorf("truncated %v, %d bytes", res.Truncated, len(s))
	}
}

// An input that blocks does not hold Run up once the tool has ended.
func TestBlockedInput(t *testing.T) {
	tool := script(t, `exit 0`)
	in, end := io.Pipe()
	if _, err := New(nil).Run(t.Context(), Cmd{Path: tool, Stdin: in}); err != nil {
		t.Error(err)
	}
	if err := end.Close(); err != nil {
		t.Error(err)
	}
}

// A tool may leave a daemon, which keeps the pipes open.
func TestDaemonIsLeftAlone(t *testing.T) {
	tool := script(t, `sleep 1000 & echo $! >"$0.pid"; echo done`)
	res, err := New(nil).Run(t.Context(), Cmd{Path: tool})
	if err != nil || string(res.Stdout) != "done\n" {
		t.Errorf("got %q, %v", res.Stdout, err)
	}
	pid := atoi(t, readLine(t, tool+".pid"))
	if !alive(pid) {
		t.Error("the daemon is gone")
	}
	kill9(t, pid)
}

func TestContextEndedBefore(t *testing.T) {
	tool := script(t, `touch "$0.ran"`)
	why := errors.New("volume is being deleted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	// A tool that is missing would be the error if anything were tried.
	for _, path := range []string{tool, tool + ".missing"} {
		_, err := New(nil).Run(ctx, Cmd{Path: path})
		if !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := os.Stat(tool + ".ran"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it ran: %v", err)
	}
}
