package model

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/idempotency"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// callHeader is the metadata that names the call: what works for it, works in its
// context.
const callHeader = "model-call"

var (
	errDead  = errors.New("the process is dead")
	errPanic = errors.New("a panic")
)

func isUnavailable(err error) bool { return errors.Is(err, backends.ErrUnavailable) }

// callOf is the call in whose context something happens, nil at a start.
func (w *world) callOf(ctx context.Context) *asking {
	md, _ := metadata.FromIncomingContext(ctx)
	v := md.Get(callHeader)
	if len(v) != 1 {
		return nil
	}
	id, err := strconv.Atoi(v[0])
	if err != nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[id]
}

// moments is what each call of the backend takes: no deadline is a multiple of it.
const moments = 1013 * time.Microsecond

// changes are the methods of a backend that do what an operation is
// for; the others look.
var changes = map[string]bool{
	"CreateVolume": true, "RestoreSnapshot": true, "CloneVolume": true, "DeleteVolume": true, "ExpandVolume": true, "ModifyVolume": true,
	"AttachVolume": true, "DetachVolume": true, "CreateSnapshot": true, "DeleteSnapshot": true, "CreateGroupSnapshot": true, "DeleteGroupSnapshot": true,
	"engine": true, "OpenVolume": true, "CloseVolume": true,
}

// makes are those of them that make what was not there.
var makes = map[string]bool{"CreateVolume": true, "RestoreSnapshot": true, "CloneVolume": true, "CreateSnapshot": true, "CreateGroupSnapshot": true}

// places are the points of mem in the words of a plan.
var places = map[mem.Point]string{mem.Before: "before", mem.Midway: "midway", mem.After: "after"}

// watch puts the probe into a backend.
func (p *process) watch(b *mem.Backend) {
	for point, where := range places {
		b.Inject(mem.Fault{At: point, Do: func(ctx context.Context, c mem.Call) error {
			return p.step(ctx, c.Method, where)
		}})
	}
}

// step is one point of a method: it notes what happens, takes its time, and fails
// if that is planned.
func (p *process) step(ctx context.Context, method, where string) (err error) {
	if p.gate() {
		return errDead
	}
	c := p.w.callOf(ctx)
	if c == nil {
		return p.sleep(ctx, nil, &plan{slow: moments})
	}
	switch where {
	case "before":
		p.enter(ctx, c, method)
	case "after":
		p.made(c, method)
	}
	ended := true // so that a panic is an end
	defer func() {
		if p.gate() {
			err = errDead
			return
		}
		if ended {
			p.exit(ctx, c, method, err)
		}
	}()
	err = p.play(ctx, c, method, where)
	// From midway mem goes on to after, whatever happened; and it begins only in a
	// context that has not ended.
	ended = where == "after" || where == "before" && (err != nil || ctx.Err() != nil)
	return err
}

// play does what the plan of the call says.
func (p *process) play(ctx context.Context, c *asking, method, where string) error {
	if where == "before" {
		if err := p.sleep(ctx, c, &plan{slow: moments}); err != nil {
			return err
		}
		if !changes[method] {
			where = "lookup"
		}
	}
	plan := &c.action.plan
	if plan.where != where || where == "after" && !changes[method] || !p.turn(c) {
		return nil
	}
	if err := p.sleep(ctx, c, plan); err != nil {
		return err
	}
	return p.fail(c, plan, method)
}

// turn is true once for each call: its plan happens once.
func (p *process) turn(c *asking) bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.w.places[c.id]++
	return p.w.places[c.id] == c.action.plan.skip+1
}

// sleep takes time. It notes when the operation is cancelled.
func (p *process) sleep(ctx context.Context, c *asking, plan *plan) error {
	if plan.slow == 0 {
		return nil
	}
	timer := time.NewTimer(plan.slow)
	defer timer.Stop()
	beat := time.NewTicker(stall / 3)
	defer beat.Stop()
	done := ctx.Done()
	for {
		select {
		case <-timer.C:
			return nil
		case <-beat.C:
			if plan.alive {
				idempotency.FromContext(ctx).Progress("sleeping")
			}
		case <-done:
			done = nil
			p.cancelled(ctx, c)
			if !plan.deaf {
				return context.Cause(ctx)
			}
		}
	}
}

func (p *process) cancelled(ctx context.Context, c *asking) {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if c == nil || c.op == nil || c.op.cut.was() || p.dead {
		return
	}
	c.op.cut, c.op.cause = w.now(), context.Cause(ctx)
	w.note(c.op.cut, "      %v is cancelled: %v", c, c.op.cause)
}

func faultText(id int) string { return fmt.Sprintf("fault-%d-", id) }

// fail ends the method, if it is to.
func (p *process) fail(c *asking, plan *plan, method string) error {
	if plan.fails == "" {
		return nil
	}
	f := &failure{kind: plan.fails, where: plan.where, method: method, text: faultText(c.id)}
	w := p.w
	w.mu.Lock()
	f.at = w.now()
	if c.op != nil {
		c.op.failed = f
	}
	w.note(f.at, "      %v fails in %s, %s: %s", c, method, f.where, f.kind)
	w.mu.Unlock()
	switch plan.fails {
	case "panic":
		panic(f.text)
	case "unavailable":
		return fmt.Errorf("%w: %s", backends.ErrUnavailable, f.text)
	case "failed":
		return fmt.Errorf("%w: %s", backends.ErrFailed, f.text)
	case "nospace":
		return fmt.Errorf("%w: %s", backends.ErrNoSpace, f.text)
	}
	return errors.New(f.text)
}

// enter notes that a method is called. The operation is the call's whose context
// it has; what runs in no operation only looks.
func (p *process) enter(ctx context.Context, c *asking, method string) {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	e := &event{begun: w.now(), method: method}
	w.note(e.begun, "    %v in %s", c, method)
	if idempotency.FromContext(ctx) == nil {
		c.looks = append(c.looks, e)
		return
	}
	o := c.op
	if o == nil {
		o = &operation{call: c, proc: p, first: e.begun}
		c.op = o
		w.ops = append(w.ops, o)
	}
	o.inside++
	o.events = append(o.events, e)
}

// exit notes that it has ended, and what the storage is like.
func (p *process) exit(ctx context.Context, c *asking, method string, err error) {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.now()
	list := c.looks
	if idempotency.FromContext(ctx) != nil {
		list = c.op.events
		c.op.inside--
		c.op.last = m
	}
	var e *event
	for _, x := range list {
		if x.method == method && !x.ended.was() {
			e = x
		}
	}
	e.ended, e.err, e.seen = m, err, map[object]sight{}
	for _, o := range append([]object{c.about}, c.sources...) {
		if o != "" {
			e.seen[o] = w.look(o)
		}
	}
	e.mounts, e.own = w.mounts(c.path), w.mountsOf(c.path, c.about)
	_, missing := os.Lstat(c.path)
	e.target = missing == nil
	if c.about != "" && c.about[0] == 'v' {
		_, e.staged = p.engine.InUse(ids[c.about])
	}
	w.note(m, "    %v out of %s: %v", c, method, e.seen[c.about])
}

// made remembers who made what is there now.
func (p *process) made(c *asking, method string) {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if makes[method] && w.look(c.about).there {
		w.makers[c.about] = c
	}
}

// mounts counts those at a path, mountsOf those of a volume among them.
func (w *world) mounts(path string) int { return len(w.mountsAt(path)) }

func (w *world) mountsOf(path string, volume object) int {
	n := 0
	for _, m := range w.mountsAt(path) {
		if m.Source == "/dev/mem/"+ids[volume] {
			n++
		}
	}
	return n
}

func (w *world) mountsAt(path string) []mnt.Info {
	return slices.DeleteFunc(w.kernel.Mounts(), func(m mnt.Info) bool { return m.Point != path })
}

// watched is the node engine with the probe around what changes something.
type watched struct {
	csidriver.Engine
	p *process
}

func (e watched) do(ctx context.Context, f func() error) error {
	if err := e.p.step(ctx, "engine", "before"); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	over := false
	defer func() {
		if c := e.p.w.callOf(ctx); !over && c != nil && !e.p.gate() { // a panic below
			e.p.exit(ctx, c, "engine", errPanic)
		}
	}()
	err := f()
	over = true
	if lost := e.p.step(ctx, "engine", "after"); lost != nil {
		return lost
	}
	return err
}

func (e watched) Stage(ctx context.Context, req mounter.StageRequest) error {
	return e.do(ctx, func() error { return e.Engine.Stage(ctx, req) })
}

func (e watched) Unstage(ctx context.Context, req mounter.UnstageRequest) error {
	return e.do(ctx, func() error { return e.Engine.Unstage(ctx, req) })
}

func (e watched) Publish(ctx context.Context, req mounter.PublishRequest) error {
	return e.do(ctx, func() error { return e.Engine.Publish(ctx, req) })
}

func (e watched) Unpublish(ctx context.Context, req mounter.UnpublishRequest) error {
	return e.do(ctx, func() error { return e.Engine.Unpublish(ctx, req) })
}

func (e watched) Expand(ctx context.Context, req mounter.ExpandRequest) (size int64, err error) {
	err = e.do(ctx, func() (err error) { size, err = e.Engine.Expand(ctx, req); return err })
	return size, err
}
