package co

import (
	"context"
	"errors"
	"fmt"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
)

// failure is a column of the table: something that goes wrong with an RPC.
type failure struct {
	name string
	// doubt: something may still be in progress, or be left behind. No code may then
	// make a CO forget.
	doubt bool
	// silent: of a lookup it says nothing of what an earlier call has made.
	silent bool
	// fits says whether it can happen to r; nil: to each that has a place to fail.
	fits  func(r *rpc) bool
	start func(o *mem.Options, s *setup, r *rpc) // before the driver starts; nil ok
	early bool                                   // the driver is not ready, and nothing is prepared
	call  func(f *fixture, r *rpc) error
}

// patience is a client's deadline that is longer than anything here.
const patience = 10 * time.Minute

func failures() []*failure {
	all := append(kinds(), unknown()...)
	all = append(all, ends()...)
	return append(all, refusals()...)
}

// says is a backend that fails with this error, plain and wrapped in a text with a
// secret. Both get one code.
func says(name string, doubt bool, err func(f *fixture, r *rpc) error) *failure {
	return &failure{name: name, doubt: doubt, call: func(f *fixture, r *rpc) error {
		plain := err(f, r)
		// The second first: what succeeds in spite of it shall do so only once.
		f.inject(r.at, mem.Fault{Times: 1, Err: fmt.Errorf("vendor: login with %s: %w", r.secret(), plain)})
		first := f.call(r, f.t.Context())
		if first == nil {
			return nil
		}
		f.engineAgain(mem.Fault{Err: plain}, r)
		second := f.call(r, f.t.Context())
		if status.Code(first) != status.Code(second) {
			f.t.Errorf("%s at %s, %s: %v wrapped, and %v plain", r.name, r.at, name, first, second)
		}
		return first
	}}
}

func kind(name string, err error) *failure {
	return says(name, false, func(*fixture, *rpc) error { return err })
}

func silent(name string, err error) *failure {
	f := kind(name, err)
	f.silent = true
	return f
}

func pending(name string, err error) *failure {
	return says(name, true, func(*fixture, *rpc) error { return err })
}

// kinds are what a backend may say by the contract.
func kinds() []*failure {
	gone := says("not found, of this very object", false, func(f *fixture, r *rpc) error { return r.gone(f) })
	gone.fits = func(r *rpc) bool { return r.gone != nil }
	return []*failure{
		kind("ErrInvalid", backends.ErrInvalid),
		gone,
		pending("ErrExists", backends.ErrExists),
		kind("ErrIncompatible", backends.ErrIncompatible),
		kind("ErrOutOfRange", backends.ErrOutOfRange),
		kind("ErrNoSpace", backends.ErrNoSpace),
		kind("ErrLimit", backends.ErrLimit),
		kind("ErrInUse", backends.ErrInUse),
		kind("ErrPrecondition", backends.ErrPrecondition),
		pending("ErrPending", backends.ErrPending),
		pending("ErrStaleToken", backends.ErrStaleToken),
		pending("ErrUnavailable", backends.ErrUnavailable),
		silent("ErrPermission", backends.ErrPermission),
		silent("ErrUnauthenticated", backends.ErrUnauthenticated),
		kind("ErrUnsupported", backends.ErrUnsupported),
		silent("ErrDataLoss", backends.ErrDataLoss),
		silent("ErrFailed", backends.ErrFailed),
		pending("ErrNotReady", backends.ErrNotReady),
		pending("ErrUnavailable and ErrInUse", fmt.Errorf("%w: %w", backends.ErrInUse, backends.ErrUnavailable)),
	}
}

// at is a fault at one place, of which nobody knows what it left behind.
func at(name string, point mem.Point, fault mem.Fault) *failure {
	fault.At, fault.Times = point, 1
	return &failure{name: name, doubt: true, call: func(f *fixture, r *rpc) error {
		fault := fault
		if fault.Panic != nil {
			fault.Panic = "with " + r.secret()
		}
		f.inject(r.at, fault)
		return f.call(r, f.t.Context())
	}}
}

// unknown are failures that say nothing of what they left behind.
func unknown() []*failure {
	nonsense := &failure{name: "an answer that CSI does not allow", doubt: true, call: func(f *fixture, r *rpc) error {
		f.inject(r.at, mem.Fault{At: mem.After, Times: 1, Answer: func(any) any { return r.answer }})
		return f.call(r, f.t.Context())
	}}
	nonsense.fits = func(r *rpc) bool { return r.answer != nil }
	return []*failure{
		pending("an error of no kind", errors.New("exit status 5")),
		pending("a gRPC status of the vendor's API", status.Error(codes.NotFound, "no such LUN")),
		pending("not found, of something else", backends.VolumeNotFound("another")),
		pending("not found, of nothing named", backends.ErrNotFound),
		pending("a context that ended, not the caller's (cancelled)", context.Canceled),
		pending("a context that ended, not the caller's (deadline)", context.DeadlineExceeded),
		at("an error after the work was done", mem.After, mem.Fault{Err: errors.New("connection reset")}),
		at("a panic", mem.Before, mem.Fault{Panic: "with "}),
		at("a panic after the work was done", mem.After, mem.Fault{Panic: "with "}),
		nonsense,
	}
}

// untilCut hangs until the context of the operation ends, and forGood for ever.
func (f *fixture) untilCut(times int) mem.Fault {
	return mem.Fault{Times: times, Do: func(ctx context.Context, _ mem.Call) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.release:
			return errors.New("released")
		}
	}}
}

func (f *fixture) forGood() mem.Fault {
	return mem.Fault{Do: func(context.Context, mem.Call) error { <-f.release; return errors.New("released") }}
}

// inBackground runs call, and waits until it hangs.
func inBackground(f *fixture, call func() error) <-chan error {
	answer := make(chan error, 1)
	go func() { answer <- call() }()
	synctest.Wait()
	return answer
}

// ends are calls and operations that are ended from outside.
func ends() []*failure {
	return []*failure{
		{name: "slower than the client's deadline", doubt: true, call: func(f *fixture, r *rpc) error {
			f.inject(r.at, f.untilCut(0))
			return f.call(r, limited(f.t, 30*time.Second))
		}},
		{name: "the client cancels", doubt: true, call: func(f *fixture, r *rpc) error {
			f.inject(r.at, f.untilCut(0))
			ctx, cancel := context.WithCancel(f.t.Context())
			answer := inBackground(f, func() error { return f.call(r, ctx) })
			cancel()
			return <-answer
		}},
		{name: "no progress for Options.Stall", doubt: true, call: func(f *fixture, r *rpc) error {
			f.inject(r.at, f.untilCut(0))
			return f.call(r, limited(f.t, patience))
		}},
		{name: "hangs for good", doubt: true, call: func(f *fixture, r *rpc) error {
			f.inject(r.at, f.forGood())
			return f.call(r, limited(f.t, patience))
		}},
		{name: "the opposite is asked for", doubt: true, fits: func(r *rpc) bool { return r.undo != nil }, call: func(f *fixture, r *rpc) error {
			f.inject(r.at, f.untilCut(1))
			answer := inBackground(f, func() error { return f.call(r, limited(f.t, patience)) })
			if err := r.undo(limited(f.t, patience), f); err != nil {
				f.t.Errorf("%s at %s: its opposite: %v", r.name, r.at, err)
			}
			return <-answer
		}},
		{name: "a conflicting operation runs", doubt: true, fits: func(r *rpc) bool { return r.rival != nil }, call: func(f *fixture, r *rpc) error {
			place := r.stuck
			if place == "" {
				place = r.at
			}
			fault := f.forGood()
			fault.Times = 1
			f.inject(place, fault)
			rival := inBackground(f, func() error { return r.rival(f.t.Context(), f) })
			select {
			case err := <-rival:
				f.t.Errorf("%s: what is to be in its way does not hang at %s: %v", r.name, place, err)
			default:
			}
			return f.call(r, limited(f.t, 15*time.Second))
		}},
		{name: "the driver stops, and cuts it", doubt: true, start: func(_ *mem.Options, s *setup, _ *rpc) { s.opts.Drain = 5 * time.Second },
			call: func(f *fixture, r *rpc) error {
				f.inject(r.at, f.untilCut(0))
				answer := inBackground(f, func() error { return f.call(r, limited(f.t, patience)) })
				f.stop()
				return <-answer
			}},
		{name: "the driver stops, and it hangs for good", doubt: true, start: func(_ *mem.Options, s *setup, _ *rpc) { s.opts.Drain = 5 * time.Second },
			call: func(f *fixture, r *rpc) error {
				f.inject(r.at, f.forGood())
				answer := inBackground(f, func() error { return f.call(r, limited(f.t, patience)) })
				f.stop()
				return <-answer
			}},
	}
}

// refusals are calls that never get as far as the backend.
func refusals() []*failure {
	just := func(f *fixture, r *rpc) error { return f.call(r, limited(f.t, patience)) }
	anyRPC := func(*rpc) bool { return true }
	return []*failure{
		{name: "the driver is starting", doubt: true, fits: anyRPC, early: true, call: func(f *fixture, r *rpc) error {
			synctest.Wait()
			return just(f, r)
		}, start: func(_ *mem.Options, s *setup, _ *rpc) {
			s.backend.Inject(mem.Fault{Method: "RecoverController", Delay: 1000 * time.Hour})
		}},
		{name: "the backend cannot do it", fits: func(r *rpc) bool { return r.ability != "" }, early: true, call: func(f *fixture, r *rpc) error {
			f.ready()
			return just(f, r)
		}, start: func(o *mem.Options, _ *setup, r *rpc) { o.Without = []string{r.ability} }},
		{name: "this process does not serve it", fits: func(r *rpc) bool { return service(r.full) != "Identity" }, early: true, call: func(f *fixture, r *rpc) error {
			f.ready()
			return just(f, r)
		}, start: func(_ *mem.Options, s *setup, r *rpc) {
			if s.cfg.Serve = csidriver.ServeNode; service(r.full) == "Node" {
				s.cfg.Serve = csidriver.ServeController
			}
		}},
		{name: "a request that CSI does not allow", fits: func(r *rpc) bool { return r.empty != nil }, call: func(f *fixture, r *rpc) error {
			err := r.empty(f.t.Context(), f)
			f.look(r.name, err)
			return err
		}},
	}
}
