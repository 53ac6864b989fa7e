package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// sharedMark is what the keys of shared locks have before the number of their
// session, so that those of exclusive ones are a range of names: all that are less
// than it.
const sharedMark = "s"

// retryAfter is the pause between two tries of a request that failed.
const retryAfter = 100 * time.Millisecond

// lock is a place in the queue of a key, and the lock when it is the first.
type lock struct {
	s     *session
	queue string // what the keys of all begin with
	key   string // of this one
	share bool   // it waits for exclusive ones only
	rev   int64  // at which key was made
	doubt bool   // a request to make key may still be on its way
	gone  atomic.Bool
}

// Token is the revision at which the holder's key was made; who comes later in the
// queue has a greater one.
func (k *lock) Token() int64 { return k.rev }

func (k *lock) Lost() <-chan struct{} {
	if k.gone.Load() {
		c := make(chan struct{})
		close(c)
		return c
	}
	return k.s.live.Done()
}

// acquire takes a place in the queue and waits until it is the first.
func (k *lock) acquire(ctx context.Context) error {
	if err := k.enqueue(ctx); err != nil {
		k.abandon()
		return err
	}
	for {
		before, err := k.before(ctx)
		if err == nil && before == nil {
			if k.s.isLost() {
				return ErrLost
			}
			return nil
		}
		if err == nil {
			err = k.await(ctx, before)
		}
		if err = k.again(ctx, err); err != nil {
			k.abandon()
			return err
		}
	}
}

// again tells whether to go on after an error: nil, after a pause if there was
// one.
func (k *lock) again(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		k.s.lose()
		return ErrLost
	case errors.Is(err, ErrLost):
		return err
	case k.s.isLost():
		return errors.Join(ErrLost, err)
	case err == nil:
		return nil
	case refused(err):
		return err
	}
	select {
	case <-time.After(retryAfter):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-k.s.live.Done():
		return errors.Join(ErrLost, err)
	}
}

// refused tells whether it is of no use to try again.
func refused(err error) bool {
	for _, e := range []error{rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrAuthFailed, rpctypes.ErrRequestTooLarge} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// request bounds one request, by the session's end too.
func (k *lock) request(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	defer context.AfterFunc(k.s.live, cancel)()
	return do(ctx)
}

// enqueue makes the key. To ask again is safe: there is one key, made once.
func (k *lock) enqueue(ctx context.Context) error {
	for {
		made := false
		err := k.request(ctx, func(ctx context.Context) (err error) {
			made, err = k.make(ctx, k.s.epochNow())
			return err
		})
		switch {
		case made:
			return nil
		case err == nil:
			continue // of an epoch that is over
		}
		k.doubt = true
		if err := k.again(ctx, err); err != nil {
			return err
		}
	}
}

// make asks for the key to be made in an epoch of the session, and in none after
// it.
func (k *lock) make(ctx context.Context, epoch int64) (made bool, err error) {
	r, err := k.s.l.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(k.key), "=", 0), clientv3.Compare(clientv3.ModRevision(k.s.epochKey), "=", epoch)).
		Then(clientv3.OpPut(k.key, "", clientv3.WithLease(k.s.id))).
		Else(clientv3.OpGet(k.key), clientv3.OpGet(k.s.epochKey)).Commit()
	if err != nil {
		return false, err
	}
	if r.Succeeded {
		k.rev = r.Header.Revision
		return true, nil
	}
	if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 { // by an earlier request
		k.rev = kvs[0].CreateRevision
		return true, nil
	}
	kvs := r.Responses[1].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return false, ErrLost // the epoch has gone with the session
	}
	k.s.epochIs(kvs[0].ModRevision)
	return false, nil
}

// place is what stands before a key, and as of when.
type place struct {
	key string
	rev int64
}

// others are those that k has to wait for, if they came before it.
func (k *lock) others() []clientv3.OpOption {
	last := append(clientv3.WithLastCreate(), clientv3.WithMaxCreateRev(k.rev-1), clientv3.WithKeysOnly())
	if k.share {
		last = append(last, clientv3.WithRange(k.queue+sharedMark))
	}
	return last
}

// before finds whom k waits for: the last of them, after whose end it asks again.
// nil: nobody, and k is there.
func (k *lock) before(ctx context.Context) (p *place, err error) {
	err = k.request(ctx, func(ctx context.Context) error {
		r, err := k.s.l.client.Txn(ctx).Then(clientv3.OpGet(k.key), clientv3.OpGet(k.queue, k.others()...)).Commit()
		if err != nil {
			return err
		}
		own, last := r.Responses[0].GetResponseRange().Kvs, r.Responses[1].GetResponseRange().Kvs
		if len(own) == 0 || own[0].CreateRevision != k.rev {
			return ErrLost
		}
		if len(last) > 0 {
			p = &place{string(last[0].Key), r.Header.Revision}
		}
		return nil
	})
	return p, err
}

// await waits until the key of p is deleted.
func (k *lock) await(ctx context.Context, p *place) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	events := k.s.l.client.Watch(ctx, p.key, clientv3.WithRev(p.rev+1), clientv3.WithFilterPut())
	for {
		select {
		case w, ok := <-events:
			if !ok {
				return errors.New("the watch ended")
			}
			if err := w.Err(); err != nil {
				return err
			}
			for _, e := range w.Events {
				if e.Type == mvccpb.DELETE {
					return nil
				}
			}
		case <-k.s.live.Done():
			return ErrLost
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Unlock gives the lock back. An error that is [ErrLost] says that it was not held
// any more; after another one it is given back as soon as etcd is there again.
func (k *lock) Unlock(ctx context.Context) error {
	var deleted int64
	err := k.request(ctx, func(ctx context.Context) error {
		n, err := k.remove(ctx)
		deleted = n
		return err
	})
	switch {
	case k.s.isLost():
		return ErrLost
	case err != nil:
		k.abandon()
		return fmt.Errorf("etcdlock: %w", err)
	case deleted == 0:
		k.gone.Store(true)
		return fmt.Errorf("%w: its key is gone", ErrLost)
	}
	return nil
}

// remove deletes the key. Where a request to make it may still be on its way, it
// begins another epoch, so that this request comes too late whenever it comes.
func (k *lock) remove(ctx context.Context) (deleted int64, err error) {
	ops := []clientv3.Op{clientv3.OpDelete(k.key)}
	if k.doubt {
		ops = append(ops, clientv3.OpPut(k.s.epochKey, "", clientv3.WithLease(k.s.id)))
	}
	r, err := k.s.l.client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return 0, err
	}
	if k.doubt {
		k.s.epochIs(r.Header.Revision)
	}
	return r.Responses[0].GetResponseDeleteRange().Deleted, nil
}

// abandon takes the key out of the queue, as long as it takes; at the latest the
// end of the session does.
func (k *lock) abandon() {
	k.s.l.spawn(func() {
		for {
			err := k.request(context.Background(), func(ctx context.Context) error {
				_, err := k.remove(ctx)
				return err
			})
			if err == nil || k.again(context.Background(), err) != nil {
				return
			}
		}
	})
}
