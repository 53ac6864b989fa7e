package check

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const lastCalls = 6 // of a check that a result shows

// T is one check at work. Its methods may be called from several goroutines, but
// for those that end the check: Fatalf, OK, NotRun and what uses them.
type T struct {
	*Facts
	run   *runner
	cfg   *Config
	check *Check
	ctx   context.Context
	dir   string

	controller, nodeConn *grpc.ClientConn
	ledger               ledger

	mu       sync.Mutex
	calls    []recorded
	shown    []recorded // at the first failure
	verdict  Verdict
	broken   []string
	messages []string
	names    int
}

type recorded struct {
	method    string
	req, resp proto.Message
	err       error
	took      time.Duration
}

// stop ends a check; it is no failure by itself.
type stop struct{}

func (t *T) record(method string, req, resp proto.Message, err error, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = append(t.calls, recorded{method, req, resp, err, took})
	if len(t.calls) > lastCalls {
		t.calls = slices.Delete(t.calls, 0, 1)
	}
}

// Context ends with the time of the check.
func (t *T) Context() context.Context { return t.ctx }

// Config is what the run was told.
func (t *T) Config() *Config { return t.cfg }

// Failf says that clauses are broken: ids separated by spaces, or "" for those of
// the check. The check goes on.
func (t *T) Failf(clauses, format string, args ...any) { t.say(Fail, clauses, format, args...) }

// Warnf says what is allowed, and no good.
func (t *T) Warnf(clauses, format string, args ...any) { t.say(Warn, clauses, format, args...) }

// Fatalf is Failf, and the check is over.
func (t *T) Fatalf(clauses, format string, args ...any) {
	t.say(Fail, clauses, format, args...)
	panic(stop{})
}

// NotRun ends a check that cannot be made here.
func (t *T) NotRun(format string, args ...any) {
	t.say(NotRun, "", format, args...)
	panic(stop{})
}

// NotApplicable ends a check of what this driver has not.
func (t *T) NotApplicable(format string, args ...any) {
	t.say(NotApplicable, "", format, args...)
	panic(stop{})
}

// Skip ends a check with a verdict that is none of the driver's doing.
func (t *T) Skip(v Verdict, why string) {
	t.say(v, "", "%s", why)
	panic(stop{})
}

// End ends the check as it is.
func (t *T) End() { panic(stop{}) }

func (t *T) say(v Verdict, clauses, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v == Fail || v == Warn {
		ids := strings.Fields(clauses)
		if len(ids) == 0 {
			ids = strings.Fields(t.check.Clauses)
		}
		if v == Fail && onlyAdvice(ids) {
			v = Warn
		}
		for _, id := range ids {
			if !slices.Contains(t.broken, id) {
				t.broken = append(t.broken, id)
			}
		}
		if t.shown == nil {
			t.shown = slices.Clone(t.calls)
		}
	}
	if t.verdict == "" || slices.Index(Verdicts(), v) < slices.Index(Verdicts(), t.verdict) {
		t.verdict = v
	}
	if text := t.run.redactor.line(fmt.Sprintf(format, args...)); !slices.Contains(t.messages, text) && len(t.messages) < 20 {
		t.messages = append(t.messages, text)
	}
}

// Failed tells whether the check has failed already.
func (t *T) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.verdict == Fail
}

// UniqueName is a name that nobody has.
func (t *T) UniqueName() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.names++
	return "csikit-" + t.run.id + "-" + strconv.FormatInt(t.run.names.Add(1), 36)
}

// Dir is the check's own directory; it is made when it is asked for.
func (t *T) Dir() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dir == "" {
		dir := filepath.Join(t.cfg.Dir, "c"+strconv.FormatInt(t.run.dirs.Add(1), 10))
		if err := os.Mkdir(dir, 0o750); err != nil {
			panic(err) // is a result
		}
		t.dir = dir
	}
	return t.dir
}

// Do makes a call once.
func Do[R proto.Message](t *T, req proto.Message) (R, error) { return DoIn[R](t.ctx, t, req) }

// DoIn makes a call once, in a context of its own.
func DoIn[R proto.Message](ctx context.Context, t *T, req proto.Message) (R, error) {
	resp, err := t.Send(ctx, req)
	r, _ := resp.(R) // nil with an error
	return r, err
}

// Ask makes a call until the driver is not away for a moment; see T.Ask.
func Ask[R proto.Message](t *T, req proto.Message) (R, error) {
	resp, err := t.Ask(req)
	r, _ := resp.(R) // nil with an error
	return r, err
}

// Try makes a call as a CO does.
func Try[R proto.Message](t *T, req proto.Message) (R, error) {
	resp, err := t.Try(req)
	r, _ := resp.(R) // nil with an error
	return r, err
}

// OK makes a call as a CO does, and ends the check unless it is answered with OK.
func OK[R proto.Message](t *T, clauses string, req proto.Message) R {
	resp, err := Try[R](t, req)
	if err == nil {
		return resp
	}
	if status.Code(err) == codes.ResourceExhausted {
		t.NotRun("%s: the driver has no room: %v", Name(req), err)
	}
	t.wanted(clauses, req, err)
	return resp
}

// Setup is OK for what a check needs, and is not about: the first check that meets a
// failure has it, and the others are not run.
func Setup[R proto.Message](t *T, clauses string, req proto.Message) R {
	resp, err := Try[R](t, req)
	if err == nil {
		return resp
	}
	if status.Code(err) == codes.ResourceExhausted {
		t.NotRun("%s: the driver has no room: %v", Name(req), err)
	}
	if first, met := t.run.setups.LoadOrStore(Name(req)+status.Code(err).String(), t.check.ID); met && first != t.check.ID {
		t.NotRun("%s fails, as in %s: %s", Name(req), first, describe(err))
	}
	t.wanted(clauses, req, err)
	return resp
}

// wanted ends the check over a call that is not OK. NOT_FOUND of a volume that
// CreateVolume has answered says that the answer came too early, or was wrong.
func (t *T) wanted(clauses string, req proto.Message, err error) {
	r, is := req.(interface{ GetVolumeId() string })
	if is && status.Code(err) == codes.NotFound && t.ledger.has("volume", r.GetVolumeId()) {
		t.Fatalf(clauses+" CV-01", "%s: got %s, want OK, as CreateVolume said of it", Name(req), describe(err))
	}
	t.Fatalf(clauses, "%s: got %s, want OK", Name(req), describe(err))
}

// Refused makes a call that must be answered with one of the codes. That the driver
// is busy, or away for a moment, is no answer. It gives the answer's code.
func (t *T) Refused(clauses, why string, req proto.Message, want ...codes.Code) codes.Code {
	_, err := t.patiently(req, func(spent time.Duration, _ int, err error) bool {
		return spent < min(aMoment, t.cfg.CallTimeout) && !slices.Contains(want, status.Code(err))
	})
	if !slices.Contains(want, status.Code(err)) {
		t.Failf(clauses, "%s %s: got %s, want %s", Name(req), why, describe(err), codeNames(want))
	}
	return status.Code(err)
}

func codeNames(list []codes.Code) string {
	var names []string
	for _, c := range list {
		names = append(names, CodeName(c))
	}
	return strings.Join(names, " or ")
}

// CodeName is a code as the spec writes it.
func CodeName(c codes.Code) string {
	if c == codes.OK {
		return "OK"
	}
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

func describe(err error) string {
	if err == nil {
		return "OK"
	}
	return fmt.Sprintf("%s (%s)", CodeName(status.Code(err)), shorten(status.Convert(err).Message()))
}

// Describe is an error as results name it.
func Describe(err error) string { return describe(err) }

// guard runs f, and makes a failure of its panic.
func (t *T) guard(f func(*T)) {
	defer func() {
		switch r := recover(); r.(type) {
		case nil, stop:
		default:
			t.Failf("", "the check itself went wrong: %v\n%s", r, debug.Stack())
		}
	}()
	f(t)
}

// Go runs f n times at once, and waits for all. A panic is a failure of the check.
func (t *T) Go(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			t.guard(func(*T) { f(i) })
		})
	}
	close(start)
	wg.Wait()
}
