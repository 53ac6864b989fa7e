package sanity

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// patience makes csi-sanity's calls as a CO does. csi-sanity takes the first answer:
// a driver that is busy (ABORTED), or away for a moment (UNAVAILABLE), failed it,
// and so did one whose snapshots take a while to get ready.
type patience struct {
	unready check.Unready

	mu     sync.Mutex
	wasted time.Duration // in vain
}

const (
	longestWait = 5 * time.Second  // for one call
	mostWasted  = 20 * time.Second // of a run
)

func (p *patience) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	q, ok := req.(proto.Message)
	if !ok {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	err := p.unready.Wait(ctx, q, func(ctx context.Context, again proto.Message) { p.again(ctx, cc, invoke, again) })
	if err != nil {
		return err
	}
	err = p.call(ctx, q, func() error { return invoke(ctx, method, req, reply, cc, opts...) })
	if r, ok := reply.(proto.Message); ok && err == nil {
		p.unready.Note(q, r)
	}
	return err
}

// again makes a call of before once more.
func (p *patience) again(ctx context.Context, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, req proto.Message) {
	m := check.MethodOf(req)
	reply := check.NewMessage(m.Output())
	if invoke(ctx, check.Path(m), req, reply, cc) == nil { // an error is no answer
		p.unready.Note(req, reply)
	}
}

// call calls until the driver has an answer, or for long enough.
func (p *patience) call(ctx context.Context, req proto.Message, once func() error) error {
	begun, pause := time.Now(), 10*time.Millisecond
	for {
		err := once()
		if !later(req, err) || ctx.Err() != nil {
			return err
		}
		if p.spent(0) >= mostWasted || time.Since(begun) >= longestWait {
			p.spent(time.Since(begun))
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

// spent adds to what was wasted, and gives it.
func (p *patience) spent(d time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wasted += d
	return p.wasted
}

// later tells whether a CO makes the call again after such an answer.
func later(req proto.Message, err error) bool {
	switch status.Code(err) {
	case codes.Unavailable:
		return true
	case codes.Aborted: // of a page it says that the token is none
		page, ok := req.(interface{ GetStartingToken() string })
		return !ok || page.GetStartingToken() == ""
	}
	return false
}
