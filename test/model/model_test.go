package model

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/testenv"
)

// TestModel runs random programs on a driver, and holds what happened against the
// rules.
func TestModel(t *testing.T) {
	if err := flag.Set("rapid.nofailfile", "true"); err != nil { // the seed is enough
		t.Fatal(err)
	}
	var sum tally
	defer func() {
		t.Logf("%d runs, %d calls, %d operations in the backend, %d processes; %v", sum.runs, sum.calls, sum.ops, sum.procs, sum.codes)
	}()
	base := scratch(t)
	rapid.Check(t, func(rt *rapid.T) {
		program := programs.Draw(rt, "program")
		dir := filepath.Join(base, fmt.Sprint(sum.runs))
		if err := os.Mkdir(dir, 0o700); err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir) //nolint:errcheck // t.TempDir's own removal would tell
		faults, history := trial(t, dir, program, &sum)
		if len(faults) > 0 {
			rt.Fatalf("after %d calls in all:\n%s\n\nhistory:\n%s", sum.calls, strings.Join(faults, "\n"), history)
		}
	})
}

// scratch is a directory for what the engine writes, in memory where there is such
// a file system: its fsyncs would take longer than all the rest.
func scratch(t *testing.T) string {
	const memory = "/dev/shm"
	if st, err := os.Stat(memory); err == nil && st.IsDir() && unix.Access(memory, unix.W_OK) == nil {
		t.Setenv("TMPDIR", memory)
	}
	return t.TempDir()
}

// tally is what was done.
type tally struct {
	runs, calls, ops, procs int
	codes                   map[codes.Code]int
}

func (s *tally) add(w *world) {
	s.runs++
	s.calls += len(w.calls)
	s.ops += len(w.ops)
	s.procs += len(w.procs)
	if s.codes == nil {
		s.codes = map[codes.Code]int{}
	}
	for _, c := range w.calls {
		if c.handled.was() {
			s.codes[status.Code(c.err)]++
		}
	}
}

// trial runs one program in a bubble of its own.
func trial(t *testing.T, dir string, program program, sum *tally) (faults []string, history string) {
	testenv.Bubble(t, func(t *testing.T) {
		w, err := newWorld(t, dir)
		if err != nil {
			faults = []string{err.Error()}
			return
		}
		time.Sleep(5 * time.Millisecond) // it recovers
		w.run(program)
		w.cleanUp()
		w.end()
		w.check()
		sum.add(w)
		if faults = w.faults; len(faults) > 0 {
			history = w.history()
		}
	})
	return faults, history
}

// cleanUp is what a CO does with what it has no use for: it asks until it is told
// OK. Then nothing may be left.
func (w *world) cleanUp() {
	for v := range volumeNames {
		for t := range targetNames {
			w.insist(action{kind: "unpublish", call: call{object: v, other: t}})
		}
		w.insist(action{kind: "unstage", call: call{object: v}})
		if w.look(object(volumeNames[v])).there {
			w.insist(action{kind: "detach", call: call{object: v, variant: 1}})
		}
	}
	for g := range groupNames {
		w.insist(action{kind: "delgroup", call: call{other: g}})
	}
	for s := range snapshotNames {
		w.insist(action{kind: "delsnapshot", call: call{other: s}})
	}
	for v := range volumeNames {
		w.insist(action{kind: "delete", call: call{object: v}})
	}
	if !w.store.Empty() {
		w.violated("everything was deleted, and something is left in the storage")
	}
	if open := w.store.Open(thisNode); len(open) > 0 {
		w.violated("everything was unstaged, and %v are open", open)
	}
	if m := w.kernel.Mounts(); len(m) > 0 {
		w.violated("everything was unpublished and unstaged, and mounts are left: %v", m)
	}
	left, err := filepath.Glob(filepath.Join(w.state, "v1", "[^.]*"))
	if err != nil || len(left) > 0 {
		w.violated("everything was unstaged, and records are left: %q (%v)", left, err)
	}
}

// insist calls until the answer is OK, for as long as what was planned may take.
func (w *world) insist(a action) {
	for range 30 {
		c := w.ask(&a)
		if c.got == nil || a.kind == "unpublish" && status.Code(c.got) == codes.FailedPrecondition {
			return // of which the other volume is there
		}
		time.Sleep(5*time.Second + 100*time.Nanosecond)
	}
	w.violated("%s is never answered OK", a.request(w.dir).kind)
}

// end stops the driver, which must not keep anything.
func (w *world) end() {
	p := w.serving()
	time.Sleep(11 * time.Minute) // as long as errors are kept
	synctest.Wait()
	if kept := keeps(p.driver); kept != "" {
		w.violated("nothing runs, and the table of operations keeps %s", kept)
	}
	for _, c := range w.co {
		if err := c.Close(); err != nil {
			w.violated("close: %v", err)
		}
	}
	p.stop()
	if err := <-p.served; err != nil {
		w.violated("nothing ran, and Serve says: %v", err)
	}
	p.bury()
	close(w.grave)
	for _, q := range w.procs {
		if q != p {
			<-q.served
		}
	}
}

// keeps says what the driver's table of operations holds.
func keeps(d *csidriver.Driver) string {
	table := reflect.ValueOf(d).Elem().FieldByName("operations").Elem()
	var kept []string
	if n := entries(table.FieldByName("keys")); n > 0 {
		kept = append(kept, fmt.Sprintf("%d keys", n))
	}
	if n := entries(table.FieldByName("kept")); n > 0 {
		kept = append(kept, fmt.Sprintf("%d errors", n))
	}
	if !table.FieldByName("all").IsNil() {
		kept = append(kept, "an operation")
	}
	return strings.Join(kept, ", ")
}

// entries counts what is in a map, or in the maps of a struct around it.
func entries(v reflect.Value) int {
	if v.Kind() == reflect.Map {
		return v.Len()
	}
	n, maps := 0, 0
	for _, f := range v.Fields() {
		if f.Kind() == reflect.Map {
			n, maps = n+f.Len(), maps+1
		}
	}
	if maps == 0 {
		panic("no map in " + v.Type().String())
	}
	return n
}
