package co

import (
	"context"
	"maps"
	"slices"
	"time"
)

// api are the objects of the orchestrator: what it believes.
type api struct {
	claims    map[string]*claim
	pvs       map[string]*pv
	vas       map[string]*attachment // by volume: there is one node
	pods      map[string]*pod
	contents  map[string]*content
	contentsG map[string]*content // of groups
}

func newAPI() *api {
	return &api{
		claims: map[string]*claim{}, pvs: map[string]*pv{}, vas: map[string]*attachment{}, pods: map[string]*pod{},
		contents: map[string]*content{}, contentsG: map[string]*content{},
	}
}

// claim is a PersistentVolumeClaim.
type claim struct {
	name     string
	size     int64  // wanted
	snapshot string // content to be made of
	source   string
	class    string // VolumeAttributesClass, wanted
	bound    bool
	lastErr  string
}

// pv is a PersistentVolume.
type pv struct {
	name, handle string
	context      map[string]string
	size         int64
	class        string // that it has
	growOnNode   bool
	deleting     bool
}

// attachment is a VolumeAttachment.
type attachment struct {
	pv        string
	attached  bool
	finalizer bool
	deleting  bool
	context   map[string]string
}

// pod uses volumes; inline ones have no claim.
type pod struct {
	name    string
	claim   string // "": an inline volume
	running bool
	deleted bool
}

// content is a VolumeSnapshotContent, or that of a group.
type content struct {
	name     string
	volumes  []string // handles of what is cut
	creating bool     // annotation: CreateSnapshot was sent, and nothing final came back
	deleted  bool
	handle   string
	members  []string
	ready    bool
}

// update changes the API's objects.
func (w *world) update(f func(a *api)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w.api)
	w.touch()
}

// touch wakes who waits for a change. w.mu is held.
func (w *world) touch() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// read looks at them.
func read[T any](w *world, f func(a *api) T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return f(w.api)
}

// snap copies one object; nil: it is not there.
func snap[T any](w *world, f func(a *api) *T) *T {
	return read(w, func(a *api) *T {
		if o := f(a); o != nil {
			c := *o
			return &c
		}
		return nil
	})
}

// until waits for the orchestrator to believe something. Six hours are for ever.
func (w *world) until(what string, cond func(a *api) bool) {
	end := time.After(6 * time.Hour / w.scale)
	for {
		w.mu.Lock()
		ok, changed := cond(w.api), w.changed
		w.mu.Unlock()
		if ok {
			w.note("---- %s", what)
			return
		}
		select {
		case <-changed:
		case <-end:
			w.fail("it does not come to this: %s", what)
			return
		}
	}
}

// queue is the rate limiter of a component's work queue.
type queue struct{ first, longest time.Duration }

// The sidecars: --retry-interval-start 1 s, --retry-interval-max 5 min, each. Kubelet:
// kubernetes v1.36.3 pkg/util/goroutinemap/exponentialbackoff.
var (
	sidecarQueue = queue{time.Second, 5 * time.Minute}
	kubeletQueue = queue{500 * time.Millisecond, 2*time.Minute + 2*time.Second}
)

// controller runs sync for each key, as the workers of a component do: one at a time
// for a key, again after an error with growing pauses, and again when something has
// changed. A key that is gone, and is done with, is forgotten.
func (w *world) controller(q queue, keys func(a *api) []string, sync func(key string) error) {
	w.wg.Go(func() {
		busy := map[string]bool{}
		gone := make(chan string)
		for {
			w.mu.Lock()
			list, changed := keys(w.api), w.changed
			w.mu.Unlock()
			for _, key := range list {
				if !busy[key] {
					busy[key] = true
					w.wg.Go(func() {
						w.work(q, key, keys, sync)
						select {
						case gone <- key:
						case <-w.done:
						}
					})
				}
			}
			select {
			case <-changed:
			case key := <-gone:
				delete(busy, key)
			case <-w.done:
				return
			}
		}
	})
}

func (w *world) work(q queue, key string, keys func(a *api) []string, sync func(key string) error) {
	pause := q.first
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		err := sync(key)
		select {
		case <-w.done:
			return
		default:
		}
		if err != nil {
			w.sleep(pause)
			pause = min(2*pause, q.longest)
			continue
		}
		pause = q.first
		if !read(w, func(a *api) bool { return slices.Contains(keys(a), key) }) {
			return
		}
		select {
		case <-changed:
		case <-w.done:
			return
		}
	}
}

// every runs f from time to time.
func (w *world) every(d time.Duration, f func()) {
	w.wg.Go(func() {
		for {
			select {
			case <-time.After(d / w.scale):
				f()
			case <-w.done:
				return
			}
		}
	})
}

// timeout is the deadline of one call of a component.
func timeout(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
