package walk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// attempts is how often a call is made that ends with a code that asks for it.
const attempts = 5

// rpcError is a call that went wrong.
type rpcError struct {
	name string
	err  error
}

func (e *rpcError) Error() string {
	return fmt.Sprintf("%s: %v: %s", e.name, status.Code(e.err), status.Convert(e.err).Message())
}
func (e *rpcError) Unwrap() error { return e.err }

// final tells whether a code says that nothing goes on any more; a CO repeats
// the call after the others.
func final(err error) bool {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted:
		return false
	}
	return true
}

// call makes one RPC, repeats it as a CO does, prints it, and gives the answer.
func call[Req, Resp any](ctx context.Context, w *Walk, name, what string, f func(context.Context, *Req, ...grpc.CallOption) (*Resp, error), req *Req) (*Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, w.o.Timeout)
	defer cancel()
	pause := w.o.pause
	for i := 1; ; i++ {
		start := time.Now()
		resp, err := f(ctx, req)
		if err == nil {
			w.rpc(name, time.Since(start), what)
			return resp, nil
		}
		w.rpc(name, time.Since(start), status.Code(err).String()+": "+status.Convert(err).Message())
		if final(err) || ctx.Err() != nil || i == attempts {
			return nil, &rpcError{name, err}
		}
		select {
		case <-ctx.Done():
			return nil, &rpcError{name, errors.Join(err, ctx.Err())}
		case <-time.After(pause):
		}
		pause *= 2
	}
}
