package csidriver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/idempotency"
)

// readerLease is how long the reader of a stream may keep its snapshots from
// being deleted. A deletion that comes later cuts the stream.
const readerLease = 10 * time.Minute

// errOutlasted ends a stream at its lease where deletions of other replicas may
// wait for it, which nobody sees here.
var errOutlasted = fmt.Errorf("it has outlasted its lease, and another replica may wait to delete what it reads: %w", backends.ErrPending)

// reading runs work, which reads snapshots for a client, while nothing deletes
// them: a deletion waits, and is told ABORTED, until the stream ends or its lease.
// Without a deletion a stream may take as long as it likes.
//
// The stream belongs to its call, and an operation outlives its call. So the
// operation does nothing but hold the keys until work is done: a client that does
// not read keeps work from ending, and not the operation.
func (m *snapshotMetadata) reading(ctx context.Context, in metadataRequest, req *backends.ChangedBlocksRequest, work func(context.Context) error) error {
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	held, done, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	defer close(done)
	hold := func(hold context.Context) error {
		defer idempotency.FromContext(hold).Busy("sends blocks")()
		close(held)
		late, stop := m.outlasted()
		defer stop()
		select {
		case <-done:
		case <-late:
			cut(errOutlasted)
		case <-hold.Done():
			cut(context.Cause(hold))
		}
		return nil
	}
	go func() { ended <- run(ctx, m.Driver, m.readOperation(in, req), hold) }()
	select {
	case <-held:
	case err := <-ended:
		if err != nil {
			return err
		}
		// Held and cut already: no whole stream, which nil would say. work sees it.
	}
	err := work(ctx)
	cause := context.Cause(ctx)
	for _, why := range []error{idempotency.ErrNegated, idempotency.ErrClosed, idempotency.ErrLost, errOutlasted} {
		if err != nil && errors.Is(cause, why) {
			return fmt.Errorf("the stream was cut: %w", cause)
		}
	}
	return err
}

// outlasted rings when a stream that begins now has to end, whoever waits.
func (m *snapshotMetadata) outlasted() (rings <-chan time.Time, stop func() bool) {
	if !m.sharesReplicas() {
		return nil, func() bool { return false }
	}
	t := time.NewTimer(m.lease)
	return t.C, t.Stop
}

func (m *snapshotMetadata) readOperation(in metadataRequest, req *backends.ChangedBlocksRequest) idempotency.Operation {
	name, keys := "GetMetadataAllocated", []idempotency.Key{sharedReadKey(req.Target)}
	if req.Base != "" {
		name, keys = "GetMetadataDelta", append(keys, sharedReadKey(req.Base))
	}
	op := operation(name, req.Target, asked{message: in, id: req.Target, lease: time.Now().Add(m.lease)}, keys...)
	op.Equal = nil // each client has a stream of its own
	return op
}
