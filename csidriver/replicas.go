package csidriver

import (
	"context"
	"strings"

	"github.com/csikit/csikit/idempotency"
)

// replicas locks across the replicas of a controller. What is of one node has no
// replica, and a deletion's key against readers would meet nobody there: what is
// shared is not locked.
type replicas struct{ idempotency.Locker }

func (r replicas) Lock(ctx context.Context, key string) (idempotency.Lease, error) {
	switch kind, _, _ := strings.Cut(key, ":"); kind {
	case "node", "path", "read":
		return nil, nil //nolint:nilnil // a key without a lock
	}
	return r.Locker.Lock(ctx, key)
}

func acrossReplicas(l idempotency.Locker) idempotency.Locker {
	if l == nil {
		return nil
	}
	return replicas{l}
}
