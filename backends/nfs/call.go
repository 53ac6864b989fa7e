package nfs

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/nfs/internal/tree"
	"github.com/csikit/csikit/internal/faultpoint"
)

// Everything that reads or writes a share is a task (worker_child.go). A share that is a
// local directory of this host is worked on in this process, every other one by a
// worker: see far.

// fresh are the mount options of the controller's own mounts. What other clients made a
// moment ago must be seen: a name that is remembered as free for half a minute would
// make a volume "not found", and a list of names a snapshot that lacks files. What lies
// on a share is data there: nothing of it is run, and no device is opened.
func fresh() []string { return []string{"actimeo=0", "lookupcache=pos", "nodev", "nosuid", "noexec"} }

// onShare runs a task on a share. lane "" is for what is quick; whatever may take long
// has a lane of its own.
func onShare[Out any](ctx context.Context, b *Backend, s Share, lane, op string, in any) (out Out, err error) {
	which, err := b.pins.of(s)
	if err != nil {
		return out, err
	}
	raw, err := json.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("%w: task %q: %w", backends.ErrInvalid, op, err)
	}
	answer, err := b.runTask(ctx, s, lane, op, siteCall{which, raw})
	if err == nil && which.ID == "" {
		err = b.pins.keep(s, answer.ID)
	}
	if err != nil || len(answer.Out) == 0 {
		return out, err
	}
	return out, json.Unmarshal(answer.Out, &out)
}

func (b *Backend) runTask(ctx context.Context, s Share, lane, op string, in siteCall) (out siteAnswer, err error) {
	if s.LocalDir == "" {
		return far[siteAnswer](ctx, b.workers, placeOf(s.with(fresh())), lane, op, in)
	}
	f := controllerTasks()[op]
	if f == nil {
		return out, fmt.Errorf("%w: task %q", backends.ErrInvalid, op)
	}
	raw, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	t := &taskCall{root: s.LocalDir, in: raw, progress: func(step string) { backends.Progress(ctx, step) }, step: b.step}
	answer, err := f(ctx, t)
	if err != nil || answer == nil {
		return out, err
	}
	// By way of JSON, as from a worker: so the tests of one are those of both.
	if raw, err = json.Marshal(answer); err != nil {
		return out, err
	}
	return out, json.Unmarshal(raw, &out)
}

// siteCall is what a task of a share is given, and siteAnswer what it gives.
type siteCall struct {
	Share identity        `json:"share"`
	In    json.RawMessage `json:"in"`
}

type siteAnswer struct {
	ID  string          `json:"id,omitempty"` // of the share; "": it was not prepared
	Out json.RawMessage `json:"out,omitempty"`
}

// where is in the arguments of each task: which installation's directory is meant.
type where struct {
	Installation string `json:"installation"`
	Init         bool   `json:"init,omitempty"` // make it if it is missing
}

func (b *Backend) where() where { return where{Installation: b.o.Installation} }

// controllerTasks are the tasks of the controller half.
func controllerTasks() map[string]task {
	return map[string]task{
		opInit: onSite(taskInit), opFind: onSite(taskFind), opList: onSite(taskList),
		opMake: onSite(taskMake), opUnmake: onSite(taskUnmake), opResize: onSite(taskResize),
		opFree: onSite(taskFree), opUsage: onSite(taskUsage), opInspect: onSite(taskInspect),
		opLegacy: onSite(taskLegacy), opLegacyDelete: onSite(taskLegacyDelete),
		opPurge: onSite(taskPurge), opTrash: onSite(taskTrash),
		opSnapBegin: onSite(taskSnapBegin), opSnapCopy: onSite(taskSnapCopy), opSnapFind: onSite(taskSnapFind),
		opSetFind: onSite(taskSetFind), opSetSave: onSite(taskSetSave), opSetDrop: onSite(taskSetDrop),
		opSnapList: onSite(taskSnapList), opSnapDelete: onSite(taskSnapDelete), opSnapSave: onSite(taskSnapSave),
	}
}

// site is a share as a task sees it.
type site struct {
	root     *tree.Root
	control  string // the directory of the installation
	id       string // of the share; "": it was not prepared
	inode    uint64 // of control; 0: it is missing
	step     func(string)
	progress func(string)
}

// located are arguments of a task.
type located interface{ at() where }

func (w where) at() where { return w }

// onSite makes a task of a function that works on a site.
func onSite[In located, Out any](f func(ctx context.Context, s *site, in In) (Out, error)) task {
	return func(ctx context.Context, t *taskCall) (any, error) {
		var c siteCall
		var in In
		if err := t.decode(&c); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(c.In, &in); err != nil {
			return nil, err
		}
		s, err := openSite(t, in.at(), c.Share)
		if err != nil {
			return nil, err
		}
		defer func() { _ = s.root.Close() }() // nothing is written by it
		out, err := f(ctx, s, in)
		if err != nil {
			return nil, kindOf(err)
		}
		raw, err := json.Marshal(out)
		return siteAnswer{s.id, raw}, err
	}
}

func openSite(t *taskCall, w where, which identity) (*site, error) {
	root, err := tree.Open(t.root)
	if err != nil {
		return nil, unavailable("%w", err)
	}
	s := &site{root: root, control: controlPrefix + w.Installation, progress: seldom(t.progress)}
	reach := t.step
	if reach == nil {
		reach = faultpoint.Reach
	}
	s.step = func(at string) {
		s.progress(at)
		reach(at)
	}
	if err := s.identify(w.Init, which); err != nil {
		_ = root.Close() // nothing was written by it
		return nil, kindOf(err)
	}
	return s, nil
}

// progressEvery is how often a task that goes on says so.
const progressEvery = 100 * time.Millisecond

// seldom passes on what is said of many small steps now and then: one of each file of a
// copy would cost more than some files do.
func seldom(f func(string)) func(string) {
	var last atomic.Int64
	return func(step string) {
		now, before := time.Now().UnixNano(), last.Load()
		if now-before >= int64(progressEvery) && last.CompareAndSwap(before, now) {
			f(step)
		}
	}
}
