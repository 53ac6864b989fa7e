package idempotency

import (
	"strconv"
	"time"
)

// EventKind says what happened.
type EventKind uint8

// What an observer is told of.
const (
	EventStart    EventKind = iota + 1 // the operation runs now
	EventJoin                          // Caller joined it
	EventWait                          // it waits for others
	EventPending                       // Caller got Err, a *PendingError, that describes the event's operation
	EventNegate                        // Caller asked for the opposite; it is cancelled
	EventStall                         // it made no progress; it is cancelled
	EventStuck                         // it was cancelled and does not end; it keeps its keys
	EventDone                          // it has ended with Err
	EventHandOver                      // Caller got Err, which nobody had been left to receive
	EventLost                          // it has lost the lease of a key; it is cancelled
	EventUnlock                        // it could not give the lease of a key back, for Err; that ends by itself
)

func (k EventKind) String() string {
	names := [...]string{"", "start", "join", "wait", "pending", "negate", "stall", "stuck", "done", "handover", "lost", "unlock"}
	if k == 0 || int(k) >= len(names) {
		return "event " + strconv.Itoa(int(k))
	}
	return names[k]
}

// Event is something that happened to an operation. Start comes before Done, and
// each operation that starts has one of each.
type Event struct {
	Kind   EventKind
	Name   string        // Operation.Name
	Owner  string        // Operation.Owner
	Step   string        // its last step
	Age    time.Duration // since it started; since the call if it has not
	Caller string        // Join, Pending, Negate, HandOver: the Owner of the call
	Err    error         // Done, Pending, HandOver, Unlock
	Stuck  bool          // it was cancelled and does not end; of Done: it had been
}

// batch is what is to be done after the table is unlocked: nothing of the user's
// but Equal and Negates runs under the lock.
type batch struct {
	events []Event
	launch *operation // linked by operation.launch
	last   *operation
}

func (t *Table) note(b *batch, kind EventKind, o *operation, caller string, err error) {
	if t.o.Observer == nil {
		return
	}
	step, _, _ := o.act.look()
	b.events = append(b.events, Event{
		Kind: kind, Name: o.op.Name, Owner: o.op.Owner,
		Step: step, Age: o.age(), Caller: caller, Err: err, Stuck: o.stuck,
	})
}

// unlock unlocks the table and does what was put off.
func (t *Table) unlock(b *batch) {
	t.mu.Unlock()
	for _, e := range b.events {
		t.observe(e)
	}
	for o := b.launch; o != nil; {
		next := o.launch
		o.launch = nil
		go o.self.run(t)
		o = next
	}
}

// observe drops a panic of the observer: it may come on the goroutine of a
// call that has operations of others to start.
func (t *Table) observe(e Event) {
	defer func() { _ = recover() }()
	t.o.Observer(e)
}
