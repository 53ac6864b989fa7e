package sanity

import (
	"context"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/internal/testenv"
)

// TestPatience: what a CO asks again is asked again, for a while; what is an answer
// is none the less.
func TestPatience(t *testing.T) {
	create, page := &csi.CreateVolumeRequest{Name: "a"}, &csi.ListVolumesRequest{StartingToken: "x"}
	for _, tt := range []struct {
		name    string
		req     proto.Message
		answers []codes.Code // the last one for ever
		calls   int
		took    time.Duration // at least
	}{
		{"at once", create, []codes.Code{codes.OK}, 1, 0},
		{"refused", create, []codes.Code{codes.InvalidArgument}, 1, 0},
		{"away", create, []codes.Code{codes.Unavailable, codes.Aborted, codes.OK}, 3, 0},
		{"then refused", create, []codes.Code{codes.Aborted, codes.AlreadyExists}, 2, 0},
		{"no token", page, []codes.Code{codes.Aborted}, 1, 0},
		{"first page", &csi.ListVolumesRequest{}, []codes.Code{codes.Aborted, codes.OK}, 2, 0},
		{"for ever", create, []codes.Code{codes.Unavailable}, 0, longestWait},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testenv.Bubble(t, func(t *testing.T) {
				calls, begun := 0, time.Now()
				answer := func() error {
					calls++
					return status.Error(tt.answers[min(calls, len(tt.answers))-1], "x")
				}
				err := new(patience).call(t.Context(), tt.req, answer)
				if want := tt.answers[len(tt.answers)-1]; status.Code(err) != want || tt.calls > 0 && calls != tt.calls || time.Since(begun) < tt.took {
					t.Errorf("%v after %d calls and %v", err, calls, time.Since(begun))
				}
			})
		})
	}
}

// TestPatienceEnds: a driver that is gone does not take so long for each spec.
func TestPatienceEnds(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		p, begun := new(patience), time.Now()
		for range 100 {
			if err := p.call(t.Context(), &csi.ProbeRequest{}, func() error { return status.Error(codes.Unavailable, "gone") }); err == nil {
				t.Fatal("no error")
			}
		}
		if d := time.Since(begun); d > 2*mostWasted {
			t.Errorf("it took %v", d)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		calls := 0
		if err := new(patience).call(over, &csi.ProbeRequest{}, func() error { calls++; return status.Error(codes.Unavailable, "gone") }); err == nil || calls != 1 {
			t.Errorf("%v after %d calls, in a context that is over", err, calls)
		}
	})
}
