package csidriver

import (
	"context"
	"strings"

	"github.com/csikit/csikit/idempotency"
)

// replicas locks across the replicas of a controller. What is of one node has no
// replica.
type replicas struct{ idempotency.Locker }

func (r replicas) Lock(ctx context.Context, key string) (idempotency.Lease, error) {
	// Nobody shares keys with the others, so a deletion would meet no reader there.
	if kind := kindOf(key); kind == "read" || ofNode(kind) {
		return nil, nil //nolint:nilnil // a key without a lock
	}
	return r.Locker.Lock(ctx, key)
}

// sharingReplicas are replicas that also share: a source with who copies it, a
// volume with who attaches it to several nodes, a snapshot with who reads it.
type sharingReplicas struct {
	idempotency.Locker
	shared idempotency.SharedLocker
}

func (r sharingReplicas) Lock(ctx context.Context, key string) (idempotency.Lease, error) {
	if ofNode(kindOf(key)) {
		return nil, nil //nolint:nilnil // a key without a lock
	}
	return r.Locker.Lock(ctx, key)
}

func (r sharingReplicas) LockShared(ctx context.Context, key string) (idempotency.Lease, error) {
	if ofNode(kindOf(key)) {
		return nil, nil //nolint:nilnil // a key without a lock
	}
	return r.shared.LockShared(ctx, key)
}

func kindOf(key string) string {
	kind, _, _ := strings.Cut(key, ":")
	return kind
}

func ofNode(kind string) bool { return kind == "node" || kind == "path" }

func acrossReplicas(l idempotency.Locker) idempotency.Locker {
	switch s, shares := l.(idempotency.SharedLocker); {
	case l == nil:
		return nil
	case shares:
		return sharingReplicas{l, s}
	}
	return replicas{l}
}

// sharesReplicas tells whether what is shared here is known to other replicas.
func (d *Driver) sharesReplicas() bool {
	_, shares := d.opts.Locker.(idempotency.SharedLocker)
	return shares
}
