// Package csiclient dials a CSI driver that somebody else runs, for csikit's
// commands and its test harness.
package csiclient

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// passthrough is gRPC's scheme for an address that is dialed as it is.
const passthrough = "passthrough:///"

// Target is what gRPC calls an endpoint: unix:///path, unix:/path, /path, or
// tcp://host:port. "" stays "".
func Target(endpoint string) (string, error) {
	path, isUnix := strings.CutPrefix(endpoint, "unix:")
	address, isTCP := strings.CutPrefix(endpoint, "tcp://")
	switch {
	case endpoint == "":
		return "", nil
	case strings.HasPrefix(endpoint, "/"):
		return "unix://" + endpoint, nil
	case isUnix && strings.HasPrefix(strings.TrimPrefix(path, "//"), "/"):
		return "unix://" + strings.TrimPrefix(path, "//"), nil
	case isTCP:
		return passthrough + address, nil
	case strings.HasPrefix(endpoint, passthrough):
		return endpoint, nil // is a target already
	}
	return "", fmt.Errorf("endpoint %q: want unix:///path or tcp://host:port", endpoint)
}

// Endpoint is a target as people write it.
func Endpoint(target string) string {
	if address, ok := strings.CutPrefix(target, passthrough); ok {
		return "tcp://" + address
	}
	return target
}

// SocketPath is the path of a target that is a Unix socket, else "".
func SocketPath(target string) string {
	path, ok := strings.CutPrefix(target, "unix://")
	if !ok {
		return ""
	}
	return path
}

// DialOptions are those of COs: clear text, and the authority that gRPC servers
// of every language take.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost")}
}

// Dial makes a client of a target. It connects at the first call.
func Dial(target string, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(target, append(DialOptions(), more...)...)
}

// WaitServing waits until the driver at conn answers, ready or not.
func WaitServing(ctx context.Context, conn grpc.ClientConnInterface) error {
	_, err := csi.NewIdentityClient(conn).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
	return err
}

// WaitReady waits until the driver at conn says that it is ready.
func WaitReady(ctx context.Context, conn grpc.ClientConnInterface) error {
	for {
		resp, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		if resp.GetReady() == nil || resp.GetReady().GetValue() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the driver does not get ready: %w", context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
