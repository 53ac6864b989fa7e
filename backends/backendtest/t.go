package backendtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

// T is one check at work: the backend as it is open now, and what the check did
// with it.
type T struct {
	testing.TB
	cfg  *Config
	b    Backend
	c    backends.ControllerFeatures
	n    backends.NodeFeatures
	open map[string]*backends.Source // what is open on the node
	made int
	// mount makes volumes that are mounted, whatever Config says.
	mount bool
}

// use takes a backend that was opened.
func (t *T) use(b Backend) {
	t.b, t.c, t.n = b, backends.ControllerFeatures{}, backends.NodeFeatures{}
	if b.Controller != nil {
		t.c = backends.DetectController(b.Controller)
	}
	if b.Node != nil {
		t.n = backends.DetectNode(b.Node)
	}
	if t.open == nil {
		t.open = make(map[string]*backends.Source)
	}
}

// need skips the check, by name, when something it needs is missing.
func (t *T) need(needs string) {
	t.Helper()
	for name := range strings.FieldsSeq(needs) {
		if !t.has(name) {
			t.Skipf("the backend is no %s", name)
		}
	}
}

// interfaces are the names of the optional ones.
func interfaces() []string {
	var names []string
	for _, f := range []any{backends.ControllerFeatures{}, backends.NodeFeatures{}} {
		for field := range reflect.TypeOf(f).Fields() {
			names = append(names, field.Name)
		}
	}
	return names
}

func (t *T) has(name string) bool {
	switch name {
	case "Controller":
		return t.b.Controller != nil
	case "Node":
		return t.b.Node != nil
	}
	for _, f := range []any{t.c, t.n} {
		if v := reflect.ValueOf(f).FieldByName(name); v.IsValid() && !v.IsNil() {
			return true
		}
	}
	return false
}

// want skips the check when Config does not give a field.
func (t *T) want(given bool, field string) {
	t.Helper()
	if !given {
		t.Skipf("Config gives no %s", field)
	}
}

// recover is what a process does before it serves.
func (t *T) recover() {
	t.Helper()
	ctx := t.Context()
	if t.c.Recoverer != nil {
		t.must("RecoverController", t.c.Recoverer.RecoverController(ctx))
	}
	if t.n.NodeRecoverer != nil {
		var open []backends.OpenVolume
		for id, src := range t.open {
			open = append(open, backends.OpenVolume{ID: id, State: src.State})
		}
		t.must("RecoverNode", t.n.NodeRecoverer.RecoverNode(ctx, open))
	}
}

// reopen opens the storage anew, as the next process does.
func (t *T) reopen() {
	t.Helper()
	t.use(t.cfg.Reopen(t.TB, t.b))
	t.recover()
}

// end closes what is open on the node.
func (t *T) end() {
	ctx := context.WithoutCancel(t.Context())
	for id, src := range t.open {
		if err := t.b.Node.CloseVolume(ctx, backends.CloseVolumeRequest{ID: id, State: src.State}); err != nil {
			t.Errorf("CloseVolume %s at the end: %v", id, err)
		}
	}
}

// capability of the volumes of the check.
func (t *T) capability() backends.Capability {
	c := t.cfg.capability(&t.b.Traits)
	if t.mount && c.Block {
		c.Block, c.FSType = false, t.b.Traits.FSTypes[0]
	}
	return c
}

// must fails the check when err is one.
func (t *T) must(call string, err error) {
	t.Helper()
	if t.watch(call, err) != nil {
		t.Fatalf("%s: %v", call, err)
	}
}

// watch looks at an error as every error is looked at: it tells no secret, and
// a not-found names its object.
func (t *T) watch(call string, err error) error {
	t.Helper()
	if err == nil {
		return nil
	}
	t.hides(call, fmt.Sprintf("%v %+v", err, err))
	var nf *backends.NotFoundError
	if errors.Is(err, backends.ErrNotFound) && !errors.As(err, &nf) {
		t.Errorf("%s: not found, and it does not say what: make it by VolumeNotFound and its like: %v", call, err)
	}
	return err
}

// hides fails the check when text tells a secret.
func (t *T) hides(where, text string) {
	t.Helper()
	secrets := t.cfg.secrets()
	for _, k := range secrets.Keys() {
		if v, _ := secrets.Lookup(k); len(v) >= 8 && strings.Contains(text, v) {
			t.Errorf("%s tells the value of secret %q", where, k)
		}
	}
}

// wantKind fails the check unless err is of one of the kinds.
func (t *T) wantKind(call string, err error, kinds ...error) {
	t.Helper()
	_ = t.watch(call, err)
	if !slices.ContainsFunc(kinds, func(k error) bool { return errors.Is(err, k) }) {
		t.Errorf("%s: got error %v, want one of %q", call, err, kinds)
	}
}

// wantNotFound fails the check unless err says that exactly this is missing.
func (t *T) wantNotFound(call string, err error, kind backends.Kind, ids ...string) {
	t.Helper()
	_ = t.watch(call, err)
	var nf *backends.NotFoundError
	switch {
	case !errors.As(err, &nf):
		t.Errorf("%s: got error %v, want %s %q not found", call, err, kind, ids)
	case nf.Kind != kind || !slices.Contains(ids, nf.ID):
		t.Errorf("%s: %s %q is not found, asked for was %s %q", call, nf.Kind, nf.ID, kind, ids)
	}
}

// same fails the check unless two answers tell the same.
func (t *T) same(what string, got, want any) {
	t.Helper()
	if g, w := show(got), show(want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// show is an answer as text, without what may change by itself.
func show(v any) string {
	switch v := v.(type) {
	case *backends.Volume:
		c := *v
		c.Name, c.Nodes, c.Mutable = "", nil, nil
		return fmt.Sprintf("%+v", c)
	case *backends.Snapshot:
		return showSnapshot(*v)
	case *backends.GroupSnapshot:
		c, members := *v, []string{}
		for _, m := range v.Snapshots {
			members = append(members, showSnapshot(m))
		}
		slices.Sort(members)
		c.Snapshots, c.Created, c.Name = nil, c.Created.UTC().Round(0), ""
		return fmt.Sprintf("%+v %s", c, members)
	case *backends.Source:
		return showSource(v)
	default:
		return fmt.Sprintf("%+v", v)
	}
}

func showSnapshot(s backends.Snapshot) string {
	s.Created, s.Ready, s.Name = s.Created.UTC().Round(0), false, ""
	return fmt.Sprintf("%+v", s)
}

func showSource(s *backends.Source) string {
	text := fmt.Sprintf("dir %q", s.Dir)
	if s.Device != nil {
		d := *s.Device
		d.Identity.Check = nil
		text += fmt.Sprintf(" device %+v", d)
	}
	if s.Mount != nil {
		text += fmt.Sprintf(" mount %+v", *s.Mount)
	}
	return text
}

// await asks until done says yes, for something that a backend does on its own
// after it has answered.
func (t *T) await(what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after a minute", what)
		}
	}
}
