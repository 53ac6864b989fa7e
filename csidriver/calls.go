package csidriver

import (
	"context"
	"fmt"
	"sync"
	"time"
)

type callKey struct{}

// call is one RPC, and the context that its handler gets: one allocation for
// both.
type call struct {
	context.Context
	method     *method
	ids        *requestIDs
	number     uint64
	start      time.Time
	prev, next *call

	mu    sync.Mutex
	req   any    // a stream's arrives after its call began
	named string // what id answered
}

// Value adds the call itself to the values of the client's context.
func (c *call) Value(key any) any {
	if _, ok := key.(callKey); ok {
		return c
	}
	return c.Context.Value(key)
}

func (c *call) request() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.req
}

func (c *call) setRequest(req any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.req == nil {
		c.req = req
	}
}

// String names the call for a drain report.
func (c *call) String() string {
	_, object := subject(c.request())
	if object != "" {
		object = " " + object
	}
	return fmt.Sprintf("%s%s (request %s, running for %v)", c.method.name, object, c.id(), time.Since(c.start).Round(time.Millisecond))
}

// calls are the RPCs that run now.
type calls struct {
	mu    sync.Mutex
	first *call
}

func (l *calls) add(c *call) {
	l.mu.Lock()
	if c.next = l.first; c.next != nil {
		c.next.prev = c
	}
	l.first = c
	l.mu.Unlock()
}

func (l *calls) remove(c *call) {
	l.mu.Lock()
	if c.next != nil {
		c.next.prev = c.prev
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	c.prev, c.next = nil, nil // a context that outlives its call keeps no others alive
	l.mu.Unlock()
}

// running names the calls, the oldest first.
func (l *calls) running() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	last := l.first
	for last != nil && last.next != nil {
		last = last.next
	}
	for c := last; c != nil; c = c.prev {
		names = append(names, c.String())
	}
	return names
}
