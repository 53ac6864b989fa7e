package csidriver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"sync/atomic"
)

// requestIDs numbers the calls of one server. The random prefix tells them from
// those of another process in the same log.
type requestIDs struct {
	prefix string
	last   atomic.Uint64
}

func newRequestIDs() *requestIDs {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, says its documentation
	return &requestIDs{prefix: hex.EncodeToString(b[:]) + "-"}
}

// RequestID gives the identifier of the call that ctx belongs to, as log lines,
// ABORTED messages and drain reports name it; "" outside a call. It also holds
// in a context that outlives the call.
func RequestID(ctx context.Context) string {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c.id()
	}
	return ""
}

// id is made only when somebody asks, and once: most calls end unnamed.
func (c *call) id() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.named == "" {
		b := append(make([]byte, 0, 32), c.ids.prefix...)
		c.named = string(strconv.AppendUint(b, c.number, 10))
	}
	return c.named
}
