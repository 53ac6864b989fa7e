// Package idempotency runs operations on named things so that a retry joins the
// work that its first try started.
//
// A CSI client calls with a deadline, gives up, and calls again with the same
// request, while the work of the first call may still run. A plain lock answers
// such a retry with "already locked", possibly for ever. Here a call is an
// [Operation] with keys, and [Do] decides what becomes of it:
//
//   - nothing on its keys: it runs, on a goroutine of its own, detached from the
//     caller's deadline;
//   - an equal operation is already there: the call joins it and gets its result;
//   - another operation holds a key: the call waits its turn, in order of
//     arrival, for a bounded time, and then gets a [*PendingError] that names
//     what is in its way;
//   - it negates what runs (an unstage during a stage): the running operation's
//     context is cancelled and the call runs as soon as that has ended.
//
// A result that says OK is never replayed: after the end the next call runs
// again and looks for itself. Only an error that no caller was left to receive is
// handed over, once, to the next equal call, unless another operation has
// touched one of the keys.
//
// An operation may take as long as it likes while it shows that it is alive: it
// calls [Activity.Progress], or holds [Activity.Busy] during work that has a
// deadline of its own. One that does neither for Options.Stall has its context
// cancelled with [ErrStalled]. One that does not end even then is stuck: it
// keeps its keys, for nobody knows what it still does, its callers are told, and
// [Table.Running] names it.
//
// In short:
//
//	table := idempotency.NewTable(nil) // one for the process
//
//	vol, err := idempotency.Do(ctx, table, idempotency.Operation{
//		Name:    "CreateVolume " + req.Name,
//		Owner:   requestID,
//		Keys:    []idempotency.Key{idempotency.Exclusive("name:" + req.Name)},
//		Request: req,
//		Equal:   func(a, b any) bool { return reflect.DeepEqual(a, b) },
//	}, func(ctx context.Context) (*Volume, error) {
//		return storage.Create(ctx, req) // ctx has no deadline
//	})
//	if p, ok := errors.AsType[*idempotency.PendingError](err); ok {
//		return nil, status.Error(codes.Aborted, p.Error())
//	}
//
// # Guarantees
//
//   - Two operations with a conflicting key never run at the same time.
//   - All keys of an operation are taken at once, first come, first served:
//     nothing starves and nothing deadlocks.
//   - A call returns by its context's end, and without a deadline by the end of
//     its operation or by the moment that the operation is found stuck.
//   - The table keeps nothing of what has ended, but for at most 1024 errors
//     that were not yet handed over, each for at most ten minutes.
//
// # Queues
//
// What many operations share, and only so many may use at a time (a volume group,
// a server, an API that counts), is entered through a [Queue]: in a fair order,
// until the operation's context ends, and with the wait shown as its step.
//
// # Replicas
//
// Keys hold in one process. Where two replicas of a controller may run at once,
// and a leader election only makes that rare, a [Locker] makes exclusive keys hold
// across them, and a [SharedLocker] shared ones too. Its locks are leases: a holder
// that cannot be heard of loses them. Its operation is then cancelled and fails with
// [ErrLost], and what it may still do to the storage is kept out by the token of
// [Fence]. Calls of two replicas do not join, and do not negate each other: the
// later one waits.
//
// # When not to use it
//
// It guards one process, unless there is a Locker. It is not a cache, and after a
// crash it knows nothing: the operation must find out by looking. Where the storage
// cannot tell, package idempotency/journal keeps what was begun. For a read there
// is nothing to guard: call it directly. For a plain lock within one program a
// sync.Mutex is thirty times cheaper.
//
// Package idempotency imports the standard library only.
package idempotency
