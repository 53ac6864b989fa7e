package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/csikit/csikit/internal/csiclient"
)

// connectTime is how long a driver may take to get ready; patience is when people
// are told what is waited for.
const (
	connectTime = 30 * time.Second
	patience    = time.Second
)

// dial connects to a driver and waits until it is ready. The connection ends with
// the process.
func (f *endpointFlags) dial(ctx context.Context, out io.Writer, target string) (*grpc.ClientConn, error) {
	return f.dialUntil(ctx, out, target, csiclient.WaitReady)
}

// dialUntil connects to a driver and waits for something of it.
func (f *endpointFlags) dialUntil(
	ctx context.Context, out io.Writer, target string, wait func(context.Context, grpc.ClientConnInterface) error,
) (*grpc.ClientConn, error) {
	limit := connectTime
	if f.timeout > 0 {
		limit = min(limit, f.timeout)
	}
	conn, err := csiclient.Dial(target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	told := make(chan struct{})
	timer := time.AfterFunc(patience, func() {
		defer close(told)
		fmt.Fprintf(out, "waiting %v for the driver at %s\n", limit, csiclient.Endpoint(target))
	})
	err = wait(ctx, conn)
	if !timer.Stop() {
		<-told
	}
	if err != nil {
		return nil, fmt.Errorf("the driver at %s: %w", csiclient.Endpoint(target), errors.Join(err, conn.Close()))
	}
	return conn, nil
}
