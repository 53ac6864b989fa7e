package testenv

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// Bubble is synctest.Test that a program built with -race survives. All timers of
// a bubble run with one context of the race detector, and two goroutines that each
// receive from a timer's channel may run theirs at once: the detector is not made
// for that, and ends the process with a failed CHECK or a segmentation fault. (Two
// timers polled by eight goroutines for a second are enough, with Go 1.26.) Where
// one goroutine runs at a time it cannot happen, and races are found all the same:
// the detector looks at what is ordered, not at what was at once.
func Bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if raceDetector {
		defer oneAtATime.enter().leave()
	}
	synctest.Test(t, f)
}

// procs counts those that want one processor.
type procs struct {
	mu     sync.Mutex
	inside int
	before int
}

var oneAtATime procs

func (p *procs) enter() *procs {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inside++; p.inside == 1 {
		p.before = runtime.GOMAXPROCS(1)
	}
	return p
}

func (p *procs) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inside--; p.inside == 0 {
		runtime.GOMAXPROCS(p.before)
	}
}
