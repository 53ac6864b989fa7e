package co

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
)

// What may go wrong at a point of a call.
const (
	slow           = "slower than the sidecars' deadlines"
	slower         = "slow, almost as slow as Options.Stall"
	untilCancelled = "hangs until it is cancelled"
	forGood        = "hangs for good, and the process is killed in the end"
	panics         = "panics"
	cut            = "the connections are cut"
	restarts       = "the driver is told to stop"
	killed         = "the driver is killed"
	plainError     = "an error of no kind"
	unavailable    = "ErrUnavailable"
	isPending      = "ErrPending"
	vendorStatus   = "a gRPC status of the vendor's API"
	notAnother     = "another object's not-found"
	foreignEnd     = "somebody else's deadline"
	unauthorized   = "ErrUnauthenticated"
	forbidden      = "ErrPermission"
	failed         = "ErrFailed"
	failedToLook   = "ErrFailed of a lookup"
	noSpace        = "ErrNoSpace"
	outOfRange     = "ErrOutOfRange"
)

// troubles are the errors of those that are errors.
var troubles = map[string]error{
	plainError:   errors.New("exit status 5"),
	unavailable:  backends.ErrUnavailable,
	isPending:    backends.ErrPending,
	vendorStatus: status.Error(codes.NotFound, "no such LUN"),
	notAnother:   backends.VolumeNotFound("another"),
	foreignEnd:   context.DeadlineExceeded,
	unauthorized: backends.ErrUnauthenticated,
	forbidden:    backends.ErrPermission,
	failed:       backends.ErrFailed,
	failedToLook: backends.ErrFailed,
	noSpace:      backends.ErrNoSpace,
	outOfRange:   backends.ErrOutOfRange,
}

// doubtful say nothing of what is left, and so must each code that comes of them.
var doubtful = []string{
	slow, slower, untilCancelled, forGood, panics, cut, restarts, killed, plainError, unavailable, isPending, vendorStatus, notAnother, foreignEnd,
}

// definite is true of a first call alone: nothing is left behind. It may be answered
// with a code that ends.
var definite = []string{failed, noSpace, outOfRange}

// refused are lookups that the storage does not allow: they say nothing of what is
// there.
var refused = []string{unauthorized, forbidden, failedToLook}

// trouble is one thing that goes wrong: from the nth call of a method on, so many
// times.
type trouble struct {
	method string
	at     mem.Point
	nth    int
	times  int
	what   string
}

func pointName(at mem.Point) string {
	return map[mem.Point]string{mem.Before: "its begin", mem.Midway: "half-time", mem.After: "its end"}[at]
}

func (t trouble) String() string {
	return fmt.Sprintf("%s at %s, call %d to %d: %s", t.method, pointName(t.at), t.nth, t.nth+t.times-1, t.what)
}

// schedule is all that goes wrong.
type schedule struct {
	seed  uint64 // 0: none
	list  []trouble
	mu    sync.Mutex
	calls map[string]int
	seen  map[string]bool // methods that were called at all
}

func newSchedule(list ...trouble) *schedule {
	return &schedule{list: list, calls: make(map[string]int), seen: make(map[string]bool)}
}

func (s *schedule) String() string {
	var parts []string
	for _, t := range s.list {
		parts = append(parts, t.String())
	}
	return fmt.Sprintf("seed %d: %s", s.seed, strings.Join(parts, "; "))
}

// next counts a call, and finds what goes wrong with it.
func (s *schedule) next(method string, at mem.Point) *trouble {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprint(method, at)
	s.calls[key]++
	s.seen[method] = true
	for i := range s.list {
		t := &s.list[i]
		if t.method == method && t.at == at && s.calls[key] >= t.nth && s.calls[key] < t.nth+t.times {
			return t
		}
	}
	return nil
}

// definite tells whether anything in it may be answered with a code that ends.
func (s *schedule) definite() bool {
	return slices.ContainsFunc(s.list, func(t trouble) bool { return slices.Contains(definite, t.what) })
}

func (s *schedule) has(what string) bool {
	return slices.ContainsFunc(s.list, func(t trouble) bool { return t.what == what })
}

// pairs are all that can go wrong once at these places, each at one moment of the
// call; the moments take turns.
func pairs(places []place) []*schedule {
	var all []*schedule
	for i, p := range places {
		for j, what := range doubtful {
			t := trouble{method: p.method, at: mem.Before, nth: 1, times: 1 + 2*(j%2), what: what}
			switch (i + j) % 3 {
			case 1:
				t.at = mem.After
			case 2:
				if p.halves {
					t.at = mem.Midway
				}
			}
			all = append(all, newSchedule(t.once()))
		}
		for _, what := range definite {
			if p.makes {
				all = append(all, newSchedule(trouble{method: p.method, at: mem.Before, nth: 1, times: 3, what: what}))
			}
		}
		for _, what := range refused {
			if p.reads {
				// The first answer is lost, and then nobody may look.
				all = append(all, newSchedule(
					trouble{method: "CreateVolume", at: mem.After, nth: 1, times: 1, what: plainError},
					trouble{method: p.method, at: mem.Before, nth: 2, times: 2, what: what}))
			}
		}
	}
	return all
}

// once is enough of what ends the process.
func (t trouble) once() trouble {
	if t.what == forGood || t.what == killed || t.what == restarts {
		t.times = 1
	}
	return t
}

// place is where things may go wrong: a method, and whether half of its work can be
// done.
type place struct {
	method string
	halves bool
	reads  bool // a lookup on the way
	makes  bool // something of which nothing is left when it fails in a definite way
}

// random makes a schedule of a few things that go wrong at these places.
func random(seed uint64, places []place) *schedule {
	r := rand.New(rand.NewPCG(seed, 5))
	s := newSchedule()
	s.seed = seed
	for range 1 + r.IntN(5) {
		p := places[r.IntN(len(places))]
		t := trouble{method: p.method, nth: 1 + r.IntN(2), times: 1 + r.IntN(3), what: doubtful[r.IntN(len(doubtful))]}
		t.at = []mem.Point{mem.Before, mem.After, mem.Midway}[r.IntN(3)]
		if t.at == mem.Midway && !p.halves {
			t.at = mem.Before
		}
		if p.reads && t.at == mem.Before && r.IntN(3) == 0 {
			t.what = refused[r.IntN(len(refused))]
		}
		s.list = append(s.list, t.once())
	}
	return s
}
