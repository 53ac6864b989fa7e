package check

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/internal/csiclient"
)

// runner is one run of many checks.
type runner struct {
	cfg       *Config
	facts     *Facts
	inspector *inspector
	redactor  *redactor
	id        string // of the run, in names
	names     atomic.Int64
	dirs      atomic.Int64
	setups    sync.Map // RPC and code: the check that met it first, where it was not about it
	unready   Unready
	mode      atomic.Int32 // an access mode that the driver takes, once it is known
	blocks    atomic.Int32 // whether snapshots of mounted volumes have metadata: 1 yes, 2 no
}

// Run runs the checks that are selected, one after the other. An error says that
// there was no run.
func Run(ctx context.Context, cfg Config, checks []Check, live Listener) ([]Result, *Facts, error) {
	controller, err := csiclient.Dial(cfg.Controller)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = controller.Close() }() // all calls have been answered
	node, err := csiclient.Dial(cfg.Node)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = node.Close() }() // as above
	facts, err := discover(ctx, &cfg, controller, node)
	if err != nil {
		return nil, nil, err
	}
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	r := &runner{cfg: &cfg, facts: facts, redactor: newRedactor(cfg.Secrets), id: hex.EncodeToString(b[:])}
	r.inspector = newInspector(facts, &cfg)
	return r.all(ctx, checks, live), facts, nil
}

func (r *runner) all(ctx context.Context, checks []Check, live Listener) (results []Result) {
	add := func(res Result) {
		results = append(results, res)
		live.End(res)
	}
	ill := ""
	for _, c := range checks {
		if !Selected(r.cfg.Only, c.ID) {
			continue
		}
		live.Begin(c.ID)
		if ctx.Err() != nil && ill == "" {
			ill = "the run is over: " + context.Cause(ctx).Error()
		}
		if ill != "" {
			add(r.result(&c, NotRun, ill))
			continue
		}
		res, end := r.one(ctx, c)
		add(res)
		if end != nil {
			add(Result{ID: "run/alive/" + c.ID, Title: "The driver is a long-running service", Verdict: Fail, Clauses: []string{"PR-12"}, Broken: []string{"PR-12"},
				Message: "after " + c.ID + " the driver does not answer any more: " + describe(end.err), Reproduce: r.cfg.Reproduce(c.ID)})
			if !end.revived {
				ill = "the driver does not answer any more, since " + c.ID
			}
		}
		if r.cfg.FailFast && (res.Verdict == Fail || r.inspector.broken()) {
			ill = "one has failed, and that was enough"
		}
	}
	for _, res := range r.inspector.results() {
		if Selected(r.cfg.Only, res.ID) || res.Verdict == Fail || res.Verdict == Warn {
			live.Begin(res.ID)
			add(res)
		}
	}
	return results
}

func (r *runner) result(c *Check, v Verdict, message string) Result {
	return Result{ID: c.ID, Title: c.Title, Clauses: strings.Fields(c.Clauses), Verdict: v, Message: message, Reproduce: r.cfg.Reproduce(c.ID)}
}

// one runs a check on a goroutine of its own, so that one that hangs costs one
// result.
func (r *runner) one(ctx context.Context, c Check) (Result, *death) {
	if v, why := r.facts.need(c.Needs); v != Pass {
		return r.result(&c, v, why), nil
	}
	r.inspector.enter(c.ID)
	limit := 3 * r.cfg.CallTimeout
	cctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := &T{Facts: r.facts, run: r, cfg: r.cfg, check: &c, ctx: cctx}
	t.ledger.secrets = r.cfg.Secrets
	start := time.Now()
	if err := t.dial(); err != nil {
		return r.result(&c, NotRun, err.Error()), nil
	}
	defer t.hangUp()
	done := make(chan rest, 1)
	go func() {
		t.guard(func(t *T) {
			t.needBlocks()
			c.Run(t)
		})
		var after rest
		if t.Failed() {
			after.end = t.ended(ctx)
		}
		if after.end == nil || after.end.revived {
			t.guard(func(t *T) { after.left = t.cleanup(ctx) })
		} else {
			after.left = []string{"whatever the check had made, below " + r.cfg.Dir + " and at the storage"}
		}
		done <- after
	}()
	res := r.result(&c, Pass, "")
	var after rest
	select {
	case after = <-done:
		res.Left = after.left
	case <-time.After(2*limit + 10*time.Second):
		t.Failf("", "the check does not come back, and is left alone: a system call of it hangs, perhaps in what the driver has mounted")
		res.Left = []string{"whatever the check had made, below " + r.cfg.Dir}
	}
	res.Took = time.Since(start)
	t.fill(&res)
	if ctx.Err() != nil && res.Verdict == Fail {
		res.Verdict, res.Message = NotRun, "the run was over before the check was: "+res.Message
	}
	return res, after.end
}

// rest is what a check leaves: things, and perhaps a driver that has ended.
type rest struct {
	left []string
	end  *death
}

// death is that of a driver.
type death struct {
	err     error
	revived bool // it was started again
}

// ended looks whether a driver is still there after a check that failed, and starts
// it again, so that the check can clean up.
func (t *T) ended(ctx context.Context) *death {
	err := t.run.alive(ctx)
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	t.ctx = ctx // the check's may be over
	return &death{err: err, revived: t.run.revive(ctx) == nil && t.Ready() == nil}
}

// needBlocks ends a check of the blocks of mounted volumes where the driver has
// that of raw ones alone: it says so by INVALID_ARGUMENT.
func (t *T) needBlocks() {
	about := slices.Contains(strings.Fields(t.check.Needs), "metadata") || strings.Contains(t.check.ID, "/GetMetadata")
	if t.cfg.Block || !about || !t.Has("metadata") || !t.Has("CREATE_DELETE_SNAPSHOT") {
		return
	}
	if t.run.blocks.Load() == 0 {
		s := t.NewVolume().NewSnapshot()
		err := t.Stream(t.ctx, &csi.GetMetadataAllocatedRequest{SnapshotId: s.GetSnapshotId(), Secrets: t.cfg.Secrets}, func(proto.Message) bool { return true })
		t.run.blocks.Store(1)
		if status.Code(err) == codes.InvalidArgument {
			t.run.blocks.Store(2)
		}
	}
	if t.run.blocks.Load() == 2 {
		t.NotApplicable("GetMetadataAllocated of a mounted volume is INVALID_ARGUMENT: the metadata are of raw block volumes (--access block)")
	}
}

// fill makes a result of what the check has said.
func (t *T) fill(res *Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.verdict != "" {
		res.Verdict = t.verdict
	}
	res.Broken, res.Message = t.broken, strings.Join(t.messages, "\n")
	calls := t.shown
	if calls == nil {
		calls = t.calls[max(0, len(t.calls)-2):]
	}
	for _, c := range calls {
		res.Calls = append(res.Calls, t.run.redactor.call(c))
	}
	res.Left = slices.Clone(res.Left)
	if len(res.Left) > 0 && res.Verdict == Pass {
		res.Verdict = Warn
		res.Message = "left behind: " + strings.Join(res.Left, "; ")
	}
}

func (r *redactor) call(c recorded) Call {
	out := Call{Method: c.method, Request: r.text(c.req), Code: CodeName(status.Code(c.err)), Took: c.took}
	if c.err != nil {
		out.Response = r.line(shorten(status.Convert(c.err).Message()))
	} else {
		out.Response = r.text(c.resp)
	}
	return out
}

// revive starts a driver again that has ended, or hangs.
func (r *runner) revive(ctx context.Context) error {
	if r.cfg.Restart == nil {
		return errors.New("nobody says how to restart the driver")
	}
	if err := r.cfg.Restart(ctx); err != nil {
		return err
	}
	return r.alive(ctx)
}

// alive asks whether the driver is still there; one that is being started again
// gets a while.
func (r *runner) alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(10*time.Second, r.cfg.CallTimeout))
	defer cancel()
	for _, target := range slices.Compact([]string{r.cfg.Node, r.cfg.Controller}) {
		conn, err := csiclient.Dial(target)
		if err != nil {
			return err
		}
		for {
			_, err = csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{})
			if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
				break
			}
			conn.ResetConnectBackoff()
			time.Sleep(20 * time.Millisecond)
		}
		_ = conn.Close() // nothing was sent that could be lost
		if c := status.Code(err); c == codes.Unavailable || c == codes.DeadlineExceeded {
			return fmt.Errorf("%s: %w", csiclient.Endpoint(target), err)
		}
	}
	return nil
}
