package suite

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/sanity/internal/check"
)

// startChecks: what of H-09 and H-10 is about the driver's end and its start.
func startChecks() []Check {
	return []Check{
		{ID: "H-10/start", Title: "While a driver starts Probe is OK, and ready is false until it is ready", Clauses: "ID-16 ID-17", Needs: "restart", Run: probeAtStart},
		{ID: "H-09/term", Title: "SIGTERM ends a driver soon, with no final code for what runs, and the next one goes on", Clauses: "GEN-18 CV-02 PR-12", Needs: "CREATE_DELETE_VOLUME restart pid", Run: terminated},
	}
}

// restart kills the driver, has it started again, and waits until it is ready.
func restart(t *T) {
	if err := t.Config().Restart(t.Context()); err != nil {
		inTheWay(t, err)
		t.NotRun("the driver could not be restarted: %v", err)
	}
	ready(t)
}

// ready waits until the driver that was started says so.
func ready(t *T) {
	err := t.Ready()
	switch {
	case err == nil:
	case errors.Is(err, check.ErrNotReady):
		t.Fatalf("ID-17 PR-12", "the driver was killed and started again, and for %v Probe says that it is not ready", 2*t.Config().CallTimeout)
	default:
		t.Fatalf("PR-12 PR-01", "the driver was killed and started again, and is not ready: %v", err)
	}
}

// inTheWay ends the check when it was the socket of the killed driver that kept the
// next one from starting: twice it does not start, and without the socket it starts. A
// command that cannot start anything is no fault of the driver.
func inTheWay(t *T, first error) {
	const times = 2
	for n := 1; n <= times; n++ {
		if !removeSockets(t) || t.Config().Restart(t.Context()) != nil {
			return
		}
		ready(t)
		if n < times && t.Config().Restart(t.Context()) == nil {
			ready(t)
			return
		}
	}
	t.Fatalf("PR-01 PR-12", "the driver does not start while the socket of one that was killed is there, and starts without it: %v", first)
}

// removeSockets removes those at which nobody listens any more, if there are any.
func removeSockets(t *T) (some bool) {
	for _, target := range slices.Compact([]string{t.Config().Controller, t.Config().Node}) {
		path := csiclient.SocketPath(target)
		info, err := os.Lstat(path)
		if err != nil || info.Mode()&fs.ModeSocket == 0 {
			continue
		}
		if _, err := csiclient.Peer(path); !errors.Is(err, syscall.ECONNREFUSED) {
			continue // somebody listens
		}
		some = os.Remove(path) == nil || some
	}
	return some
}

// probeAtStart asks all the time while the driver is killed and started.
func probeAtStart(t *T) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			_, err := check.DoIn[*csi.ProbeResponse](ctx, t, &csi.ProbeRequest{})
			switch codeOf(err) {
			case codes.OK, codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
			case codes.FailedPrecondition: // it is not healthy yet, it says
			default:
				t.Failf("ID-16 ID-15", "Probe while the driver starts: got %s, want OK and ready false", check.Describe(err))
			}
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Millisecond):
			}
		}
	})
	err := t.Config().Restart(ctx)
	cancel()
	wg.Wait()
	if err != nil {
		inTheWay(t, err)
		t.NotRun("the driver could not be restarted: %v", err)
	}
	ready(t)
	for range 20 {
		if resp := check.OK[*csi.ProbeResponse](t, "ID-17", &csi.ProbeRequest{}); resp.GetReady() != nil && !resp.GetReady().GetValue() {
			t.Fatalf("ID-17", "Probe: ready was true, and is false")
		}
	}
}

// endTime is how long a driver may take to end: kubelet waits for 30 s.
const endTime = 30 * time.Second

// terminated ends the driver as a CO does, while it works.
func terminated(t *T) {
	t.Mode()
	pid, err := csiclient.Peer(csiclient.SocketPath(t.Config().Controller))
	if err != nil || int(pid) == os.Getpid() {
		t.NotRun("who serves the socket is not to be seen: %v", err)
	}
	reqs := make([]*csi.CreateVolumeRequest, 8)
	for i := range reqs {
		reqs[i] = t.CreateRequest()
	}
	ids := make([]string, len(reqs))
	t.Go(len(reqs)+1, func(i int) {
		if i == len(reqs) {
			time.Sleep(2 * time.Millisecond) // the calls are there; or they are over
			_ = syscall.Kill(int(pid), syscall.SIGTERM)
			return
		}
		resp, err := check.Do[*csi.CreateVolumeResponse](t, proto.Clone(reqs[i]).(*csi.CreateVolumeRequest))
		switch codeOf(err) {
		case codes.OK:
			ids[i] = resp.GetVolume().GetVolumeId()
		case codes.Unavailable, codes.Aborted, codes.Canceled, codes.DeadlineExceeded, codes.ResourceExhausted:
		default:
			t.Failf("GEN-18", "CreateVolume while the driver is ended by SIGTERM: got %s, which tells the CO that nothing is going on; want OK or UNAVAILABLE", check.Describe(err))
		}
	})
	for end := time.Now().Add(endTime); !gone(pid); pause(t) {
		if time.Now().After(end) {
			t.Warnf("PR-12", "%v after SIGTERM the driver still runs: a CO kills it then", endTime)
			break
		}
	}
	restart(t)
	for i, req := range reqs {
		v := check.OK[*csi.CreateVolumeResponse](t, "GEN-18 CV-02", req).GetVolume()
		if ids[i] != "" && v.GetVolumeId() != ids[i] {
			t.Failf("CV-02 GEN-18", "CreateVolume was OK when the driver was ended, and gave %s; the next driver gives %s", ids[i], v.GetVolumeId())
		}
	}
}

// gone tells whether a process has ended, though perhaps nobody has waited for it.
func gone(pid int32) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/stat")
	return err != nil || bytes.Contains(b, []byte(") Z "))
}
