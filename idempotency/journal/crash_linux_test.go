package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(envOrder); text != "" {
		orderMain(text)
	}
	testenv.Main(m)
}

// The system calls at which a driver is killed. Between two of them nothing changes
// outside of the process.
var kills = []string{"mkdirat", "flock", "openat", "write", "fsync", "renameat", "unlinkat", "connect", "read"}

// mostKills is more than a driver makes of a call, with those that the runtime makes
// beside it: a driver that is still killed then has no end.
const mostKills = 500

// orchestrator calls a driver until it answers, as external-provisioner does.
type orchestrator struct {
	t     *testing.T
	cloud *cloud
	dir   string   // of the journal; empty: none
	exe   string   // of the driver; empty: this one
	env   []string // of the driver, beside this process's
}

// life runs one process of the driver, under strace if a call to be killed at is
// named.
func (o *orchestrator) life(do order, call string, n int) (answer string, code int, killed bool) {
	o.t.Helper()
	do.Socket, do.Journal = o.cloud.socket, o.dir
	text, err := json.Marshal(do)
	if err != nil {
		o.t.Fatal(err)
	}
	exe := o.exe
	if exe == "" {
		if exe, err = os.Executable(); err != nil {
			o.t.Fatal(err)
		}
	}
	args := []string{exe}
	if call != "" {
		args = []string{"strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=" + call,
			"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n), exe}
	}
	c := exec.CommandContext(o.t.Context(), args[0], args[1:]...)
	c.Env = append(append(os.Environ(), envOrder+"="+string(text), "GOMAXPROCS=1", "GORACE=atexit_sleep_ms=0"), o.env...)
	var out, stderr bytes.Buffer
	c.Stdout, c.Stderr = &out, &stderr
	err = c.Run()
	o.cloud.settle(o.t)
	var ee *exec.ExitError
	switch {
	case err == nil:
		return out.String(), 0, false
	case errors.As(err, &ee) && ee.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return "", -1, true
	case errors.As(err, &ee) && ee.ExitCode() == exitUnavailable:
		return "", exitUnavailable, false
	case strings.Contains(stderr.String(), "ptrace"):
		o.t.Skipf("missing: ptrace: %s", &stderr)
	}
	o.t.Fatalf("%v: %v\n%s", do, err, &stderr)
	return "", 0, false
}

// until repeats a call until it is answered.
func (o *orchestrator) until(do order) string {
	o.t.Helper()
	for range 30 {
		if answer, code, _ := o.life(do, "", 0); code == 0 {
			return answer
		}
	}
	o.t.Fatalf("%+v is not answered", do)
	return ""
}

// create makes a volume through a driver that is killed at first, and then
// repeats the call once more: its answer may have been lost too.
func (o *orchestrator) create(name, call string, n int) (id string, killed bool) {
	o.t.Helper()
	_, _, killed = o.life(order{Create: name}, call, n)
	id = o.until(order{Create: name})
	if again := o.until(order{Create: name}); again != id {
		o.t.Errorf("killed at %s %d: %s is %s, and when asked again %s", call, n, name, id, again)
	}
	return id, killed
}

// A driver that is killed at every system call makes each volume once, and a
// deletion leaves none.
func TestKilledAtEverySystemCall(t *testing.T) {
	testenv.Tool(t, "strace")
	if testing.Short() {
		t.Skip("starts some hundreds of processes")
	}
	for _, call := range kills {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			died := 0
			for _, lose := range []int{0, 2} { // the reply of no creation, of every second one
				died += killedAt(t, call, lose)
			}
			if died == 0 {
				t.Errorf("never calls %s: the test proves nothing", call)
			}
			t.Logf("killed %d times", died)
		})
	}
}

// killedAt kills a driver at the first, second, ... of a call, until it lives
// through its RPC, and says how often.
func killedAt(t *testing.T, call string, lose int) int {
	c := newCloud(t)
	c.loses(lose)
	for n := 1; n <= mostKills; n++ {
		o := &orchestrator{t: t, cloud: c, dir: filepath.Join(t.TempDir(), "journal")}
		name := fmt.Sprintf("pvc-%d", n)
		id, killed := o.create(name, call, n)
		if got := c.has()[name]; !slices.Equal(got, []string{id}) {
			t.Errorf("killed at %s %d: volumes %v; the orchestrator knows %s", call, n, got, id)
		}
		wantNothing(t, o.dir)
		o.until(order{Delete: id})
		if left := c.has(); len(left) > 0 {
			t.Errorf("killed at %s %d: leaked: %v", call, n, left)
		}
		if !killed {
			return n - 1
		}
	}
	t.Errorf("killed at %s %d times and not done", call, mostKills)
	return mostKills
}

// A driver that is killed at every fault point of the journal makes each volume
// once: see package internal/faultpoint.
func TestKilledAtEveryFaultPoint(t *testing.T) {
	testenv.Tool(t, "go")
	exe := filepath.Join(t.TempDir(), "journal.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "csikit_faults", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	c := newCloud(t)
	for _, point := range []string{"filled", "changed", "synced"} {
		died := 0
		for n := 1; died == n-1; n++ {
			o := &orchestrator{t: t, cloud: c, dir: filepath.Join(t.TempDir(), "journal"), exe: exe}
			do := order{Create: fmt.Sprint(point, n)}
			o.env = []string{fmt.Sprintf("CSIKIT_FAULT=idempotency.journal.%s:%d", point, n)}
			if _, _, killed := o.life(do, "", 0); killed {
				died++
			}
			o.env = nil
			if id := o.until(do); !slices.Equal(c.has()[do.Create], []string{id}) {
				t.Errorf("killed at %s %d: volumes %v; the orchestrator knows %s", point, n, c.has()[do.Create], id)
			}
			wantNothing(t, o.dir)
		}
		if died == 0 {
			t.Errorf("%s is never reached: the test proves nothing", point)
		}
		t.Logf("killed %d times at %s", died, point)
	}
}

// wantNothing says that the journal is readable and has no intent left.
func wantNothing(t *testing.T, dir string) {
	t.Helper()
	j, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	if a, b, c := j.Leaks(0), j.Refused(), files(t, j); len(a)+len(b)+len(c) > 0 {
		t.Errorf("unfinished %v, refused %v, files %v", a, b, c)
	}
}

// The same without a journal leaks volumes: the test above can fail.
func TestWithoutAJournalVolumesLeak(t *testing.T) {
	testenv.Tool(t, "strace")
	if testing.Short() {
		t.Skip("starts processes")
	}
	c := newCloud(t)
	for n, lose := range []int{0, 2, 0, 2} {
		c.loses(lose)
		o := &orchestrator{t: t, cloud: c}
		call, when := "read", 200 // not killed
		if n >= 2 {
			call, when = "connect", 1
		}
		name := fmt.Sprintf("pvc-%d", n)
		_, _, _ = o.life(order{Create: name}, call, when)
		o.until(order{Create: name})
	}
	leaked := 0
	for _, ids := range c.has() {
		leaked += len(ids) - 1
	}
	if leaked == 0 {
		t.Error("no volume was made twice: the cloud is too kind to show anything")
	}
	t.Logf("%d volumes leaked", leaked)
}

// What a power cut must not take is synced before the next step: the record before
// it gets its name, and the directory after each change of it.
func TestSyncs(t *testing.T) {
	testenv.Tool(t, "strace")
	c := newCloud(t)
	dir, trace := filepath.Join(t.TempDir(), "journal"), filepath.Join(t.TempDir(), "trace")
	text, err := json.Marshal(order{Socket: c.socket, Journal: dir, Create: "v"})
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "strace", "-f", "-qq", "-y", "-o", trace, "-e", "trace=mkdirat,fsync,renameat,unlinkat", exe)
	cmd.Env = append(os.Environ(), envOrder+"="+string(text), "GOMAXPROCS=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for l := range strings.Lines(string(b)) {
		for _, call := range []string{"mkdirat", "fsync", "renameat", "unlinkat"} {
			if !strings.Contains(l, call+"(") || strings.Contains(l, "resumed") {
				continue
			}
			switch {
			case call == "fsync" && strings.Contains(l, temporary+">"):
				call += " record"
			case call == "fsync" && strings.Contains(l, "journal>"):
				call += " journal"
			}
			got = append(got, call)
		}
	}
	want := []string{
		"mkdirat", "fsync", // the journal, and where it lies
		"fsync record", "renameat", "fsync journal", // Begin
		"fsync record", "renameat", "fsync journal", // Update
		"unlinkat", "fsync journal", // Finish
	}
	if !slices.Equal(got, want) {
		t.Errorf("calls %q\nwant %q\n%s", got, want, b)
	}
}
