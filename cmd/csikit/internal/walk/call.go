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

var errOK = errors.New("OK")

// orOK is an error for what should have failed and did not.
func orOK(err error) error {
	if err == nil {
		return errOK
	}
	return err
}

// final tells whether a code says that nothing goes on any more; a CO repeats
// the call after the others.
func final(err error) bool {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted:
		return false
	}
	return true
}

// gone tells whether an error is that of a driver that does not answer.
func gone(err error) bool {
	var e *rpcError
	return errors.As(err, &e) && !final(e.err)
}

// call makes one RPC, repeats it as a CO does, prints it, and gives the answer.
func call[Req, Resp any](ctx context.Context, w *Walk, name, what string, f func(context.Context, *Req, ...grpc.CallOption) (*Resp, error), req *Req) (*Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, w.o.Timeout)
	defer cancel()
	pause := w.o.pause
	for i := 1; ; i++ {
		resp, err := try(ctx, w, name, what, f, req)
		if err == nil {
			return resp, nil
		}
		if final(err) || ctx.Err() != nil || i == attempts {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, &rpcError{name, errors.Join(err, ctx.Err())}
		case <-time.After(pause):
		}
		pause *= 2
	}
}

// try makes one RPC once.
func try[Req, Resp any](ctx context.Context, w *Walk, name, what string, f func(context.Context, *Req, ...grpc.CallOption) (*Resp, error), req *Req) (*Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, w.o.Timeout)
	defer cancel()
	start := time.Now()
	resp, err := f(ctx, req)
	if err != nil {
		w.rpc(name, time.Since(start), status.Code(err).String()+": "+status.Convert(err).Message())
		return nil, &rpcError{name, err}
	}
	w.rpc(name, time.Since(start), what)
	return resp, nil
}
