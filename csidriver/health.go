package csidriver

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
)

// Probe may be called at any time by anybody: livenessprobe, each sidecar once a
// second while it waits, people.
const (
	probeAge   = 5 * time.Second  // how long an answer of the backend is good for
	probeLimit = 30 * time.Second // how long the backend may take for one
)

// health asks the backend whether it is ready, one question at a time, and keeps
// the answer for a moment.
type health struct {
	driver  *Driver
	probers []backends.Prober

	mu      sync.Mutex
	asking  chan struct{} // closed when the question is answered; nil: none is asked
	asked   time.Time     // when the kept answer was given
	err     error
	answers bool
}

func newHealth(d *Driver) *health {
	p := &health{driver: d}
	if c := d.features.controller.Prober; c != nil && d.cfg.Serve&ServeController != 0 {
		p.probers = append(p.probers, c)
	}
	if n := d.features.node.Prober; n != nil && d.cfg.Serve&ServeNode != 0 {
		if len(p.probers) == 0 || !oneValue(p.probers[0], n) {
			p.probers = append(p.probers, n)
		}
	}
	return p
}

// oneValue tells whether both halves are one value.
func oneValue(a, b any) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.TypeOf(a).Comparable() && a == b
}

// ask answers ready=false until recovery is done and while the backend says
// ErrNotReady. A backend that does not answer costs the caller its deadline, not
// the driver.
func (p *health) ask(ctx context.Context) (ready bool, err error) {
	if !p.driver.ready.Load() {
		return false, nil
	}
	if err := p.driver.missing(); err != nil {
		return false, fmt.Errorf("not healthy: %w", err)
	}
	if len(p.probers) == 0 {
		return true, nil
	}
	answered, err := p.answer(ctx)
	switch {
	case !answered:
		return false, fmt.Errorf("the backend has not answered yet: %w", ctx.Err())
	case errors.Is(err, backends.ErrNotReady):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("not healthy: %w", err)
	}
	return true, nil
}

func (p *health) answer(ctx context.Context) (answered bool, err error) {
	for {
		p.mu.Lock()
		if p.answers && time.Since(p.asked) < probeAge {
			defer p.mu.Unlock()
			return true, p.err
		}
		if p.asking == nil {
			p.asking = make(chan struct{})
			go p.question(context.WithoutCancel(ctx), p.asking)
		}
		asking := p.asking
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return false, nil
		case <-asking:
		}
	}
}

func (p *health) question(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	var err error
	for _, b := range p.probers {
		if err = p.driver.guarded("Probe", func() error { return b.Probe(ctx) }); err != nil {
			break
		}
	}
	p.mu.Lock()
	p.asking, p.err, p.asked, p.answers = nil, err, time.Now(), true
	p.mu.Unlock()
	close(done)
}
