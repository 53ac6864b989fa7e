package csidriver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/internal/faultpoint"
)

// maxMessageText bounds the message of a status: it travels in an HTTP/2 header,
// and a CO shows it to people.
const maxMessageText = 4 << 10

// unary is the whole chain of csikit for a unary RPC: identity, panic, status,
// log. One function, because a frame and a closure for each would cost more than
// what they do.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c := s.begin(ctx, info.FullMethod, req)
	defer s.calls.remove(c)
	s.logRequest(c)
	resp, err := s.handle(c, req, handler)
	if err != nil {
		resp, err = nil, s.answer(c, err)
	}
	s.logEnd(c, err)
	faultpoint.Reach("csidriver.rpc.answer")
	return resp, err
}

func (s *Server) handle(c *call, req any, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, s.panicked(c, p)
		}
	}()
	resp, err = handler(c, req)
	if resp == nil && err == nil {
		// gRPC would answer INTERNAL, which is final.
		err = errors.New("the handler answered neither a response nor an error")
	}
	return resp, err
}

// stream is the chain for a streaming RPC.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := s.begin(ss.Context(), info.FullMethod, nil)
	defer s.calls.remove(c)
	err := s.handleStream(c, srv, ss, handler)
	if err != nil {
		err = s.answer(c, err)
	}
	s.logEnd(c, err)
	return err
}

func (s *Server) handleStream(c *call, srv any, ss grpc.ServerStream, handler grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(c, p)
		}
	}()
	return handler(srv, &serverStream{ServerStream: ss, server: s, call: c})
}

// serverStream gives a streaming handler the context of its call, and notes the
// request when it arrives.
type serverStream struct {
	grpc.ServerStream
	server *Server
	call   *call
}

func (ss *serverStream) Context() context.Context { return ss.call }

func (ss *serverStream) RecvMsg(m any) error {
	if err := ss.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	ss.call.setRequest(m)
	ss.server.logRequest(ss.call)
	return nil
}

// begin registers a call. The request of a stream comes later.
func (s *Server) begin(ctx context.Context, full string, req any) *call {
	m := s.methods[full]
	if m == nil {
		m = newMethod(full)
	}
	c := &call{Context: ctx, method: m, ids: s.ids, number: s.ids.last.Add(1), start: time.Now(), req: req}
	s.calls.add(c)
	return c
}

// answer makes a status that CSI allows of a handler's error: a canonical code,
// a message, no details, no secret.
func (s *Server) answer(c *call, err error) (answer error) {
	defer func() {
		// An Error method, or Options.Errors, can panic as well as a handler.
		if p := recover(); p != nil {
			answer = s.panicked(c, p).answer
		}
	}()
	if panicked := (*panicError)(nil); errors.As(err, &panicked) {
		err = panicked.answer
	} else if s.opts.Errors != nil {
		if converted := s.opts.Errors(c, c.method.full, err); converted != nil {
			err = converted
		}
	}
	st := statusOf(err, c.method.changes)
	msg := s.redact.scrub(c.request(), st.Message())
	msg = clip(strings.ToValidUTF8(strings.TrimSpace(msg), "\uFFFD"), maxMessageText)
	if msg == "" {
		msg = fmt.Sprintf("%s failed without saying why (request %s)", c.method.name, c.id())
	}
	return status.Error(st.Code(), msg)
}

// statusOf finds the status in an error, or the one to give it.
func statusOf(err error, changes bool) *status.Status {
	if st, ok := status.FromError(err); ok && st.Code() != codes.OK && st.Code() <= codes.Unauthenticated {
		return st
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.New(status.FromContextError(err).Code(), err.Error())
	}
	return status.New(inDoubt(changes), err.Error())
}

// inDoubt is the code of a failure of which nobody knows what it left behind.
func inDoubt(changes bool) codes.Code {
	if changes {
		return codes.Unavailable
	}
	return codes.Internal
}
