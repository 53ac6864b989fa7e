package model

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// planted is one fault in the source: in a file the first text is replaced by the
// second, in which the fault is on when its name is that of the environment.
type planted struct {
	name, file, right, wrong string
}

// on is the condition of a fault, in a text of planted.
const on = "FAULT"

var plants = []planted{
	{"an OK is told again from memory", "csidriver/operations.go",
		"	op.Owner = RequestID(ctx)\n",
		"	op.Owner = RequestID(ctx)\n	if v, ok := plantedOK[T](d, op); FAULT && ok {\n		return v, nil\n	}\n"},
	{"keys are freed when the caller leaves", "idempotency/wait.go",
		"	switch {\n	case o.callers > 0:\n",
		"	if FAULT && o.callers == 0 && o.state == running {\n		t.dequeue(o, &b)\n		o.holds = nil\n	}\n	switch {\n	case o.callers > 0:\n"},
	{"create and delete do not exclude each other", "csidriver/controller.go",
		"keys := []idempotency.Key{idKey(id)}\n	if c.engine",
		"keys := []idempotency.Key{idKey(id)}\n	if FAULT {\n		keys[0].Name = \"delete:\" + id\n	}\n	if c.engine"},
	{"a name is not held against its ID", "csidriver/controller_create.go",
		"	return a, append(keys, idKey(id)), nil",
		"	if FAULT {\n		return a, keys, nil\n	}\n	return a, append(keys, idKey(id)), nil"},
	{"a joiner gets the answer to another request", "csidriver/same.go",
		"		if csiSecret(fd) {",
		"		if csiSecret(fd) || FAULT && fd.Name() == \"parameters\" {"},
	{"who waits is told the answer to another size", "csidriver/same.go",
		"	return a.Equal(b)\n",
		"	return a.Equal(b) || FAULT && fd.Name() == \"required_bytes\"\n"},
	{"a negation does not wait for the end", "idempotency/table.go",
		"		t.cutOff(n, ErrNegated)\n",
		"		t.cutOff(n, ErrNegated)\n		if FAULT {\n			t.dequeue(n, b)\n			n.holds = nil\n		}\n"},
	{"a negation is lost", "idempotency/table.go",
		"	if n.state == running {\n		t.cutOff",
		"	if FAULT && n.state == running {\n		return\n	}\n	if n.state == running {\n		t.cutOff"},
	{"an error is handed over after its keys were touched", "idempotency/kept.go",
		"	if t.kept.len() == 0 {\n",
		"	if FAULT || t.kept.len() == 0 {\n"},
	{"an error that nobody heard is forgotten", "idempotency/kept.go",
		"	if o.callers > 0 || o.err == nil ||",
		"	if FAULT || o.callers > 0 || o.err == nil ||"},
	{"an error is handed over twice", "idempotency/table.go",
		"		t.forget(d.take)\n",
		"		if !(FAULT) {\n			t.forget(d.take)\n		}\n"},
	{"the last who waits is the first who runs", "idempotency/keys.go",
		"			t.grant(first, b)\n",
		"			if FAULT && !first.granted && first.prev.op.state == queued {\n				first = first.prev\n				t.keys.set(h.Name, first)\n			}\n			t.grant(first, b)\n"},
	{"expand and delete do not exclude each other", "csidriver/controller_expand.go",
		"asked{message: in, id: req.ID}, idKey(req.ID))",
		"asked{message: in, id: req.ID}, plantedKey(FAULT, \"size:\", idKey(req.ID)))"},
	{"pending is told by a final code", "csidriver/errors.go",
		"		return codes.Aborted, true\n	}\n	switch {",
		"		if FAULT {\n			return codes.FailedPrecondition, true\n		}\n		return codes.Aborted, true\n	}\n	switch {"},
	{"an error of no kind is final", "csidriver/errors.go",
		"	return inDoubt(changes(method))",
		"	if FAULT {\n		return codes.Internal\n	}\n	return inDoubt(changes(method))"},
	{"a shutdown drops what runs without a word", "idempotency/info.go",
		"	cut = t.running()\n",
		"	if !(FAULT) {\n		cut = t.running()\n	}\n"},
	{"a snapshot does not hold its volume", "csidriver/controller_snapshot.go",
		"sharedIDKey(req.VolumeID)}",
		"plantedKey(FAULT, \"from:\", sharedIDKey(req.VolumeID))}"},
	{"a restored volume does not hold its snapshot", "csidriver/controller_create.go",
		"sharedSnapshotKey(req.source.SnapshotID))",
		"plantedKey(FAULT, \"from:\", sharedSnapshotKey(req.source.SnapshotID)))"},
	{"a target is published to by two at once", "csidriver/node_stage.go",
		"keys := []idempotency.Key{pathKey(req.Path), sharedNodeKey(req.ID)}\n	if req.Ephemeral",
		"keys := []idempotency.Key{plantedKey(FAULT, RequestID(ctx), pathKey(req.Path)), sharedNodeKey(req.ID)}\n	if req.Ephemeral"},
	{"a publish does not hold the volume", "csidriver/node_stage.go",
		"sharedNodeKey(req.ID))\n	err = run(ctx, n.Driver, op, func(ctx context.Context) error { return n.engine.Unpublish",
		"plantedKey(FAULT, \"at:\", sharedNodeKey(req.ID)))\n	err = run(ctx, n.Driver, op, func(ctx context.Context) error { return n.engine.Unpublish"},
	{"an operation ends with its caller", "idempotency/operation.go",
		"	k.base = opContext{context.WithoutCancel(ctx), &k.act}\n",
		"	k.base = opContext{context.WithoutCancel(ctx), &k.act}\n	if FAULT {\n		k.base.Context = ctx\n	}\n"},
	{"a retry does not join", "idempotency/table.go",
		"	if o.op.Equal == nil || len(o.holds) == 0 {\n		return nil\n	}\n	first",
		"	if FAULT || o.op.Equal == nil || len(o.holds) == 0 {\n		return nil\n	}\n	first"},
	{"a retry joins what was overtaken", "idempotency/table.go",
		"			!t.overtaken(e) && ",
		"			(FAULT || !t.overtaken(e)) && "},
	{"progress does not count", "idempotency/activity.go",
		"	a.step, a.last = step, time.Now()\n}\n\n// Busy",
		"	if !(FAULT) {\n		a.step, a.last = step, time.Now()\n	}\n}\n\n// Busy"},
	{"nothing stalls", "idempotency/sweep.go",
		"		if t.o.Stall == 0 {\n",
		"		if FAULT || t.o.Stall == 0 {\n"},
	{"a failed operation keeps its keys", "idempotency/operation.go",
		"	t.dequeue(o, b)\n",
		"	if !(FAULT) || err == nil {\n		t.dequeue(o, b)\n	}\n"},
	{"who is near the deadline is not told", "idempotency/wait.go",
		"	return deadline.Add(-min(t.o.Margin, time.Until(deadline)/2)), true\n",
		"	return deadline.Add(-min(t.o.Margin, time.Until(deadline)/2)), !(FAULT)\n"},
	{"who waits is told too early", "idempotency/wait.go",
		"turn := time.Now().Add(t.o.Wait)",
		"turn := time.Now().Add(plantedHalf(FAULT, t.o.Wait))"},
}

// helpers are files that the faults need.
var helpers = map[string]string{
	"idempotency/planted.go": `package idempotency

import (
	"os"
	"time"
)

var planted = os.Getenv("CSIKIT_PLANTED")

func plantedHalf(on bool, d time.Duration) time.Duration {
	if on {
		return d / 2
	}
	return d
}
`,
	"csidriver/planted.go": `package csidriver

import (
	"os"
	"sync"

	"github.com/csikit/csikit/idempotency"
)

var planted = os.Getenv("CSIKIT_PLANTED")

// plantedKey is another key when the fault is on.
func plantedKey(on bool, prefix string, k idempotency.Key) idempotency.Key {
	if on {
		k.Name = prefix + k.Name
	}
	return k
}

var plantedOKs sync.Map

type plantedID struct {
	d    *Driver
	name string
}

type plantedAnswer struct {
	request any
	value   any
}

func plantedOK[T any](d *Driver, op idempotency.Operation) (v T, ok bool) {
	a, _ := plantedOKs.Load(plantedID{d, op.Name})
	old, _ := a.(plantedAnswer)
	v, ok = old.value.(T)
	return v, ok && sameAsked(old.request, op.Request)
}

func plantedRemember(d *Driver, op idempotency.Operation, v any, err error) {
	if err == nil && planted != "" {
		plantedOKs.Store(plantedID{d, op.Name}, plantedAnswer{op.Request, v})
	}
}
`,
}

// remembers is what the first fault needs besides.
var remembers = planted{
	"", "csidriver/operations.go",
	"		return v, d.withoutSecrets(op.Request, err)\n",
	"		plantedRemember(d, op, v, err)\n		return v, d.withoutSecrets(op.Request, err)\n",
}

// bound is in how many runs a fault must be found; a run of make test has 100.
const bound = 1000

// TestPlantedFaults plants each fault, and wants TestModel to find it. All are in
// one program, made by go's overlay, and one is on at a time.
func TestPlantedFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the driver with faults")
	}
	program := buildPlanted(t)
	if out, err := runPlanted(t, program, "", 20); err != nil {
		t.Fatalf("without a fault: %v\n%s", err, out)
	}
	for _, p := range plants {
		t.Run(p.name, func(t *testing.T) {
			out, err := runPlanted(t, program, p.name, bound)
			found := regexp.MustCompile(`after (\d+) calls in all:\n\s*(.*)`).FindStringSubmatch(out)
			switch exit := (*exec.ExitError)(nil); {
			case err == nil:
				t.Errorf("nobody found it\n%s", out)
			case !errors.As(err, &exit) || found == nil:
				t.Errorf("%v\n%s", err, out)
			default:
				t.Logf("after %s calls: %s", found[1], found[2])
			}
		})
	}
}

func buildPlanted(t *testing.T) string {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sources, replace, dir := map[string]string{}, map[string]string{}, t.TempDir()
	for _, p := range append([]planted{remembers}, plants...) {
		if sources[p.file] == "" {
			b, err := os.ReadFile(filepath.Join(root, p.file))
			if err != nil {
				t.Fatal(err)
			}
			sources[p.file] = string(b)
		}
		if n := strings.Count(sources[p.file], p.right); n != 1 {
			t.Fatalf("%s: %s has %d times the text\n%s", p.name, p.file, n, p.right)
		}
		wrong := strings.ReplaceAll(p.wrong, on, "planted == "+strconv.Quote(p.name))
		sources[p.file] = strings.Replace(sources[p.file], p.right, wrong, 1)
	}
	maps.Copy(sources, helpers)
	for file, text := range sources {
		changed := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = changed
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "model.test")
	if err := os.WriteFile(overlay, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// runPlanted runs the model test with a fault. The seed is fixed, so that what was
// found once is found again.
func runPlanted(t *testing.T, program, fault string, checks int) (string, error) {
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "-test.run=^TestModel$", "-test.timeout=5m",
		"-rapid.checks="+strconv.Itoa(checks), "-rapid.seed=1", "-rapid.nofailfile", "-rapid.shrinktime=1ms")
	cmd.Env = append(os.Environ(), "CSIKIT_PLANTED="+fault)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
