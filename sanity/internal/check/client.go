package check

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/internal/csiclient"
)

// dial connects to both services for one check.
func (t *T) dial() error {
	var err error
	size := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20))
	if t.controller, err = csiclient.Dial(t.cfg.Controller, size); err != nil {
		return err
	}
	t.nodeConn = t.controller
	if t.cfg.Node != t.cfg.Controller {
		t.nodeConn, err = csiclient.Dial(t.cfg.Node, size)
	}
	return err
}

func (t *T) hangUp() {
	_ = t.controller.Close() // all calls have been answered, or nobody waits for them
	if t.nodeConn != t.controller {
		_ = t.nodeConn.Close()
	}
}

// connOf is where the RPC of a request is served.
func (t *T) connOf(req proto.Message) *grpc.ClientConn {
	if m := MethodOf(req); m != nil && onNode(m) {
		return t.nodeConn
	}
	return t.controller
}

// Send makes one unary call and gives the answer as it is.
func (t *T) Send(ctx context.Context, req proto.Message) (proto.Message, error) {
	return t.SendOn(ctx, t.connOf(req), req)
}

// SendOn is Send over a connection.
func (t *T) SendOn(ctx context.Context, conn *grpc.ClientConn, req proto.Message) (proto.Message, error) {
	m := MethodOf(req)
	if m == nil {
		return nil, status.Error(codes.Internal, "csikit: no request of the spec")
	}
	if err := t.run.unready.Wait(ctx, req, t.ask); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.CallTimeout)
	defer cancel()
	resp := NewMessage(m.Output())
	t.ledger.before(req)
	start := time.Now()
	err := conn.Invoke(ctx, Path(m), req, resp)
	took := time.Since(start)
	t.ledger.after(req, resp, err)
	t.record(string(m.Name()), req, resp, err, took)
	if err != nil {
		t.run.inspector.failed(string(m.Name()), err, took)
		return nil, err
	}
	t.run.inspector.answered(req, resp)
	t.run.unready.Note(req, resp)
	return resp, nil
}

// ask makes a call whose answer others look at.
func (t *T) ask(ctx context.Context, req proto.Message) {
	_, _ = t.Send(ctx, req) // an error is no answer
}

// Stream makes a call that answers by a stream, and hands each message on until
// each says no.
func (t *T) Stream(ctx context.Context, req proto.Message, each func(proto.Message) bool) error {
	m := MethodOf(req)
	if err := t.run.unready.Wait(ctx, req, t.ask); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.CallTimeout)
	defer cancel()
	start := time.Now()
	s, err := t.controller.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, Path(m))
	if err == nil {
		err = s.SendMsg(req)
	}
	if err == nil {
		err = s.CloseSend()
	}
	var last proto.Message
	for err == nil {
		msg := NewMessage(m.Output())
		if err = s.RecvMsg(msg); err == nil {
			last = msg
			if !each(msg) {
				break
			}
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	t.record(string(m.Name()), req, last, err, time.Since(start))
	if err != nil {
		t.run.inspector.failed(string(m.Name()), err, time.Since(start))
	}
	return err
}

// transient tells whether a CO makes the call again after such an answer, and
// nobody is at fault.
func transient(err error) bool {
	switch status.Code(err) {
	case codes.Aborted, codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return false
}

// Try makes a call as a CO does: again and again while the driver says that it is
// not done, for as long as one call may take.
func (t *T) Try(req proto.Message) (proto.Message, error) {
	return t.patiently(req, func(spent time.Duration, n int, _ error) bool { return n < 3 || spent < t.cfg.CallTimeout })
}

// aMoment is how long a driver may be away or busy where a check waits for one
// certain answer.
const aMoment = 5 * time.Second

// Ask makes a call until the driver is not away for a moment: UNAVAILABLE is no
// answer, everything else is.
func (t *T) Ask(req proto.Message) (proto.Message, error) {
	return t.patiently(req, func(spent time.Duration, _ int, err error) bool {
		return status.Code(err) == codes.Unavailable && spent < min(aMoment, t.cfg.CallTimeout)
	})
}

// patiently calls until the answer is not transient, or more says no.
func (t *T) patiently(req proto.Message, more func(spent time.Duration, n int, err error) bool) (proto.Message, error) {
	start, pause := time.Now(), 10*time.Millisecond
	for n := 1; ; n++ {
		resp, err := t.Send(t.ctx, req)
		if err == nil || !transient(err) || t.ctx.Err() != nil || !more(time.Since(start), n, err) {
			return resp, err
		}
		if status.Code(err) == codes.DeadlineExceeded && n >= 2 {
			return resp, err // it had all the time twice
		}
		select {
		case <-t.ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

// Redial has the check go on over new connections, until back is called.
func (t *T) Redial() (back func(), err error) {
	controller, node := t.controller, t.nodeConn
	if err := t.dial(); err != nil {
		return nil, err
	}
	return func() {
		t.hangUp()
		t.controller, t.nodeConn = controller, node
	}, nil
}

// Need says why something cannot be checked: the verdict, and what is missing.
func (t *T) Need(needs string) (Verdict, string) { return t.need(needs) }

// SendToNode makes a call at the node's endpoint, whatever it is.
func (t *T) SendToNode(ctx context.Context, req proto.Message) (proto.Message, error) {
	return t.SendOn(ctx, t.nodeConn, req)
}

// SendToController makes a call at the controller's endpoint, whatever it is.
func (t *T) SendToController(ctx context.Context, req proto.Message) (proto.Message, error) {
	return t.SendOn(ctx, t.controller, req)
}

// ErrNotReady says that a driver answers, and that it is not ready, all the time.
var ErrNotReady = errors.New("ready is false")

// Ready waits until a driver that was started again is ready, and connects anew.
func (t *T) Ready() error {
	ctx, cancel := context.WithTimeout(t.ctx, 2*t.cfg.CallTimeout)
	defer cancel()
	t.hangUp()
	if err := t.dial(); err != nil {
		return err
	}
	for _, conn := range []*grpc.ClientConn{t.controller, t.nodeConn} {
		if err := t.probeUntilReady(ctx, conn); err != nil {
			return err
		}
	}
	return nil
}

// probeUntilReady asks again at once: gRPC alone waits longer and longer before it
// connects to a driver that is being started.
func (t *T) probeUntilReady(ctx context.Context, conn *grpc.ClientConn) error {
	var last error
	for {
		resp, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{})
		if err == nil && (resp.GetReady() == nil || resp.GetReady().GetValue()) {
			return nil
		}
		if err == nil {
			last = ErrNotReady
		} else if ctx.Err() == nil {
			last = err
		}
		conn.ResetConnectBackoff()
		select {
		case <-ctx.Done():
			return errors.Join(last, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
