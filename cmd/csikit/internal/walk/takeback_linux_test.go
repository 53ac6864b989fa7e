package walk

import (
	"bytes"
	"context"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
)

// afterwards has a method do its work, and then something else.
func afterwards(method string, then func(n int32) error) grpc.UnaryServerInterceptor {
	var count atomic.Int32
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		resp, err := h(ctx, req)
		if path.Base(info.FullMethod) != method || err != nil {
			return resp, err
		}
		return resp, then(count.Add(1))
	}
}

// TestTakesBackCopies fails or interrupts each method that makes or deletes what
// holds data, after it has done its work: nothing is left.
func TestTakesBackCopies(t *testing.T) {
	for _, method := range []string{
		"CreateVolume", "CreateSnapshot", "GetSnapshot", "ListSnapshots", "DeleteSnapshot", "CreateVolumeGroupSnapshot",
		"GetVolumeGroupSnapshot", "DeleteVolumeGroupSnapshot", "ControllerModifyVolume", "ControllerPublishVolume", "NodePublishVolume",
	} {
		// A final code for what was made would say that it was not.
		fails := int32(1)
		if strings.HasPrefix(method, "Create") {
			fails = 2
		}
		for name, then := range map[string]func(cancel func(), n int32) error{
			"fails":         func(_ func(), n int32) error { return on(n == fails, codes.Internal) },
			"does not say":  func(_ func(), n int32) error { return on(n >= fails && n < fails+attempts, codes.Unavailable) },
			"gets a Ctrl-C": interrupt,
		} {
			t.Run(method+" "+name, func(t *testing.T) {
				store := mem.NewStore(&mem.StoreOptions{Devices: true})
				b, err := mem.New(&mem.Options{Store: store, Node: "node-1", Without: []string{"Expander", "NodeExpander"}})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				conn := serve(t, b, mounter.Options{Kernel: mountertest.NewKernel()}, csidriver.Options{
					UnaryInterceptors: []grpc.UnaryServerInterceptor{afterwards(method, func(n int32) error { return then(cancel, n) })},
				})
				var out bytes.Buffer
				err = Run(ctx, Options{
					Controller: conn, Out: &out, Name: "vol", Dir: t.TempDir(), Size: 1 << 30, Block: true, NoData: true,
					Mutable: map[string]string{"tier": "fast"}, pause: time.Microsecond,
				})
				if err == nil || strings.Contains(err.Error(), "left behind") || !store.Empty() {
					t.Errorf("%v, nothing is left: %t\n%s", err, store.Empty(), out.String())
				}
				if name == "fails" && !strings.Contains(err.Error(), "Internal") || name == "gets a Ctrl-C" && !strings.Contains(err.Error(), "cancel") && !strings.Contains(err.Error(), "Cancel") {
					t.Errorf("the walk says: %v", err)
				}
			})
		}
	}
}

func on(now bool, code codes.Code) error {
	if now {
		return status.Error(code, "planted")
	}
	return nil
}

func interrupt(cancel func(), n int32) error {
	if n == 1 {
		cancel()
	}
	return nil
}
