package idempotency

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// QueueOptions of a [Queue]. Nil or zero values mean the defaults.
type QueueOptions struct {
	// Limit is how many may be at one resource at the same time: 0: 1.
	Limit int
	// Every is the least time between two entries to one resource, for a server
	// that counts requests: 0: none.
	Every time.Duration
	// Waiting is how many calls of one client may wait for one resource; the
	// next gets [ErrQueueFull]. 0: 10,000, negative: none.
	Waiting int
	// Client says who asks, from the context of Enter. Clients take turns: one
	// that comes with a thousand calls delays another by one of them. Within a
	// client, and with a nil Client for all, the order is that of arrival.
	Client func(ctx context.Context) string
}

// ErrQueueFull is what a call gets when too many wait already.
var ErrQueueFull = errors.New("too many wait")

// Queue lets a limited number of callers at a time to each of any number of
// resources: a volume group, a server, an API that counts. Who waits, waits in
// a fair order and until his context ends.
//
// A resource is a name. A queue keeps nothing of a resource where nobody is or
// waits, but for the time of QueueOptions.Every. A nil *Queue limits nothing.
type Queue struct {
	o QueueOptions

	mu sync.Mutex
	at keyMap[*resource]
}

// resource is one that somebody is at or waits for.
type resource struct {
	name    string
	inside  []*turn
	waiting list.List       // of *turn, in the order in which they will enter
	clients keyMap[*client] // of those who wait
	round   uint64          // of who entered last
	next    time.Time       // when the next may enter
	timer   *time.Timer
}

// client is one with calls that wait.
type client struct {
	waiting int
	last    uint64 // the latest round of his calls
}

// turn is one caller at a resource. Each waits in a round; of a client no two
// wait in the same. Once a round has begun nobody is added to it, so that
// everybody's comes.
type turn struct {
	QueueTurn
	round   uint64
	entered chan struct{} // closed when he may go in; nil: he need not wait
	place   *list.Element // in resource.waiting; nil: inside, or gone
}

// NewQueue makes a queue; nil options are the defaults.
func NewQueue(o *QueueOptions) *Queue {
	q := &Queue{}
	if o != nil {
		q.o = *o
	}
	if q.o.Limit < 1 {
		q.o.Limit = 1
	}
	if q.o.Waiting == 0 {
		q.o.Waiting = 10_000
	}
	return q
}

// Enter waits for a turn at the resource and takes it. The caller leaves when it
// has done its work; to leave again does nothing.
//
// Inside an operation the wait is no stall, and the operation's step says what it
// waits for. An error is ctx's or [ErrQueueFull]; there is no turn then.
//
// A caller who is inside must not enter the same resource again: with all turns
// taken in this way everybody would wait. Who needs two resources always enters
// them in the same order.
func (q *Queue) Enter(ctx context.Context, name string) (leave func(), err error) {
	if q == nil {
		return func() {}, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	activity := FromContext(ctx)
	w := &turn{QueueTurn: QueueTurn{Since: time.Now()}}
	w.Operation, w.Owner = activity.names()
	if q.o.Client != nil {
		w.Client = q.o.Client(ctx)
	}
	r, err := q.arrive(name, w)
	if err != nil {
		return nil, fmt.Errorf("%w for %s", err, name)
	}
	if err := w.wait(ctx, activity, name); err != nil {
		q.leave(r, w)
		return nil, fmt.Errorf("waiting for %s: %w", name, err)
	}
	return func() { q.leave(r, w) }, nil
}

// arrive puts w in line, and lets it in at once where there is room.
func (q *Queue) arrive(name string, w *turn) (*resource, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.at.get(name)
	if r == nil {
		r = &resource{name: name}
		q.at.set(name, r)
	}
	if q.room(r) && r.waiting.Len() == 0 {
		w.round = r.round + 1
		q.enter(r, w)
		return r, nil
	}
	if c := r.clients.get(w.Client); c != nil && c.waiting >= q.o.Waiting || q.o.Waiting < 0 {
		return nil, ErrQueueFull
	}
	r.line(w)
	return r, nil
}

// line gives w its round, and its place behind those of the same or an earlier
// one.
func (r *resource) line(w *turn) {
	c := r.clients.get(w.Client)
	if c == nil {
		c = &client{last: r.round}
		r.clients.set(w.Client, c)
	}
	w.entered = make(chan struct{})
	c.waiting++
	c.last = max(c.last, r.round) + 1
	w.round = c.last
	e := r.waiting.Back()
	for e != nil && e.Value.(*turn).round > w.round {
		e = e.Prev()
	}
	if e == nil {
		w.place = r.waiting.PushFront(w)
		return
	}
	w.place = r.waiting.InsertAfter(w, e)
}

// unline takes w out of the line.
func (r *resource) unline(w *turn) {
	r.waiting.Remove(w.place)
	w.place = nil
	c := r.clients.get(w.Client)
	if c.waiting--; c.waiting == 0 {
		r.clients.delete(w.Client)
	}
}

func (w *turn) wait(ctx context.Context, activity *Activity, name string) error {
	if w.entered == nil {
		return nil
	}
	done := activity.Busy("waiting for " + name)
	defer done()
	select {
	case <-w.entered:
		activity.Progress("at " + name)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave takes w away, wherever it is, and lets others in.
func (q *Queue) leave(r *resource, w *turn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.place != nil {
		r.unline(w)
	} else if i := slices.Index(r.inside, w); i >= 0 {
		r.inside = slices.Delete(r.inside, i, i+1)
	} else {
		return // left before
	}
	q.admit(r)
}

// admit lets in who may, and forgets a resource of which nothing is left to know.
func (q *Queue) admit(r *resource) {
	for r.waiting.Len() > 0 && q.room(r) {
		w := r.waiting.Front().Value.(*turn)
		r.unline(w)
		q.enter(r, w)
		close(w.entered)
	}
	if len(r.inside) == 0 && r.waiting.Len() == 0 && q.due(r) && q.at.get(r.name) == r {
		q.at.delete(r.name)
	}
}

// enter lets w in.
func (q *Queue) enter(r *resource, w *turn) {
	w.Since = time.Now()
	r.round = w.round
	r.inside = append(r.inside, w)
	r.next = w.Since.Add(q.o.Every)
}

func (q *Queue) room(r *resource) bool { return len(r.inside) < q.o.Limit && q.due(r) }

// due tells whether somebody may enter now; if not, it looks again when it is
// time.
func (q *Queue) due(r *resource) bool {
	if q.o.Every <= 0 {
		return true
	}
	d := time.Until(r.next)
	if d <= 0 {
		return true
	}
	if r.timer == nil {
		r.timer = time.AfterFunc(d, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.admit(r)
		})
		return false
	}
	r.timer.Reset(d)
	return false
}

// QueueInfo describes a resource.
type QueueInfo struct {
	Resource string
	Limit    int
	Inside   []QueueTurn // who is there
	Waiting  []QueueTurn // who waits, the next one first
}

// QueueTurn describes who is at a resource or waits for it.
type QueueTurn struct {
	Operation string    // Operation.Name; empty outside of an operation
	Owner     string    // Operation.Owner
	Client    string    // what QueueOptions.Client said
	Since     time.Time // when he came; of who is inside, when he entered
}

// Running lists the resources where somebody is or waits, by name.
func (q *Queue) Running() []QueueInfo {
	if q == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []QueueInfo
	for _, r := range q.at.all() {
		in := QueueInfo{Resource: r.name, Limit: q.o.Limit}
		for _, w := range r.inside {
			in.Inside = append(in.Inside, w.QueueTurn)
		}
		for e := r.waiting.Front(); e != nil; e = e.Next() {
			in.Waiting = append(in.Waiting, e.Value.(*turn).QueueTurn)
		}
		if len(in.Inside)+len(in.Waiting) > 0 {
			all = append(all, in)
		}
	}
	slices.SortFunc(all, func(a, b QueueInfo) int { return strings.Compare(a.Resource, b.Resource) })
	return all
}
