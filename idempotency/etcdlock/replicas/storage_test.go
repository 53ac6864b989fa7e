package replicas

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/idempotency"
)

// errFenced is the storage's answer to a holder of a lock who has lost it.
var errFenced = errors.New("a later holder of the lock was here")

// storage is what the replicas share. It sees who changes an object while another
// one does, and lets nobody change it with a token that is smaller than one that it
// has seen.
type storage struct {
	t     *testing.T
	store *mem.Store

	mu       sync.Mutex
	busy     map[string]string // who changes what
	greatest map[string]int64  // token, by key
	overlaps int
	fenced   int
	made     map[string]int // volumes, by name
	slow     func(ctx context.Context, replica, method string)
}

func newStorage(t *testing.T) *storage {
	return &storage{t: t, store: mem.NewStore(nil), busy: make(map[string]string), greatest: make(map[string]int64), made: make(map[string]int)}
}

// backend is one replica's.
type backend struct {
	*mem.Backend
	s    *storage
	name string
}

// change is how a method changes an object, with the token of key and, where it
// copies, that of source.
type change struct {
	b           *backend
	method      string
	object      string // its ID
	key, source string
}

func (c change) do(ctx context.Context, work func() error) error {
	token := c.token(ctx, idempotency.Fence, c.key)
	c.enter()
	defer c.leave()
	c.s().mu.Lock()
	slow := c.s().slow
	c.s().mu.Unlock()
	if slow != nil {
		slow(ctx, c.b.name, c.method)
	}
	if err := c.fence(c.key, token, true); err != nil {
		return err
	}
	if c.source != "" {
		if err := c.fence(c.source, c.token(ctx, idempotency.SharedFence, c.source), false); err != nil {
			return err
		}
	}
	return work()
}

func (c change) s() *storage { return c.b.s }

func (c change) token(ctx context.Context, of func(context.Context, string) (int64, bool), key string) int64 {
	token, ok := of(ctx, key)
	if !ok {
		c.s().t.Errorf("%s %s has no token of %s", c.method, c.object, key)
	}
	return token
}

func (c change) enter() {
	c.s().mu.Lock()
	defer c.s().mu.Unlock()
	if c.s().busy[c.object] != "" {
		c.s().overlaps++
	}
	c.s().busy[c.object] = c.b.name
}

func (c change) leave() {
	c.s().mu.Lock()
	defer c.s().mu.Unlock()
	delete(c.s().busy, c.object)
}

// fence refuses the tokens of the past.
func (c change) fence(key string, token int64, remember bool) error {
	c.s().mu.Lock()
	defer c.s().mu.Unlock()
	if token < c.s().greatest[key] {
		c.s().fenced++
		return errFenced
	}
	if remember {
		c.s().greatest[key] = token
	}
	return nil
}

func (b *backend) id(name string) string {
	id, err := b.VolumeID(backends.CreateVolumeRequest{Name: name})
	if err != nil {
		b.s.t.Error(err)
	}
	return id
}

func (b *backend) CreateVolume(ctx context.Context, req backends.CreateVolumeRequest) (v *backends.Volume, err error) {
	err = change{b, "CreateVolume", b.id(req.Name), "id:" + b.id(req.Name), ""}.do(ctx, func() error {
		v, err = b.Backend.CreateVolume(ctx, req)
		b.count(req.Name, err)
		return err
	})
	return v, err
}

func (b *backend) CloneVolume(ctx context.Context, source backends.Volume, req backends.CreateVolumeRequest) (v *backends.Volume, err error) {
	err = change{b, "CloneVolume", b.id(req.Name), "id:" + b.id(req.Name), "id:" + source.ID}.do(ctx, func() error {
		v, err = b.Backend.CloneVolume(ctx, source, req)
		b.count(req.Name, err)
		return err
	})
	return v, err
}

func (b *backend) count(name string, err error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if err == nil {
		b.s.made[name]++
	}
}

func (b *backend) DeleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	return change{b, "DeleteVolume", req.ID, "id:" + req.ID, ""}.do(ctx, func() error { return b.Backend.DeleteVolume(ctx, req) })
}

func (b *backend) ExpandVolume(ctx context.Context, req backends.ExpandVolumeRequest) (size int64, err error) {
	err = change{b, "ExpandVolume", req.ID, "id:" + req.ID, ""}.do(ctx, func() error {
		size, err = b.Backend.ExpandVolume(ctx, req)
		return err
	})
	return size, err
}

// tally is what was seen until now.
func (s *storage) tally() (overlaps, fenced int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overlaps, s.fenced
}

// setSlow has every change call f before it is done.
func (s *storage) setSlow(f func(ctx context.Context, replica, method string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = f
}

func (s *storage) madeOf(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made[name]
}
