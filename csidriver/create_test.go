package csidriver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

func TestCreateTwice(t *testing.T) {
	r, ctx := startRig(t, nil), t.Context()
	first, err := r.CreateVolume(ctx, createReq("v"))
	wantCode(t, err, codes.OK)
	again := createReq("v")
	again.Secrets = map[string]string{"user": "another"}
	again.Parameters = map[string]string{"csi.storage.k8s.io/pvc/name": "another"}
	again.CapacityRange = &csi.CapacityRange{RequiredBytes: 1, LimitBytes: 2 * gi}
	second, err := r.CreateVolume(ctx, again)
	wantCode(t, err, codes.OK)
	if !proto.Equal(first, second) || r.backend.made.Load() != 1 {
		t.Errorf("first %v, second %v, made %d times", first, second, r.backend.made.Load())
	}
}

func TestCreateOtherArguments(t *testing.T) {
	place := func(zone string) *csi.TopologyRequirement {
		return &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: map[string]string{"a.b/zone": zone}}}}
	}
	r, ctx := startRig(t, func(s *setup) {
		s.backend.place = backends.Segments{"a.b/zone": "one"}
		s.cfg.Traits.TopologyKeys = []string{"a.b/zone"}
		s.backend.check = func(req backends.CheckVolumeRequest) error {
			if req.Volume != nil && req.Capabilities[0].Mode == backends.MultiNodeReader {
				return fmt.Errorf("%w: this one is written to", backends.ErrInvalid)
			}
			return nil
		}
	}), t.Context()
	request := func() *csi.CreateVolumeRequest {
		req := createReq("v")
		req.Parameters = map[string]string{"type": "thin"}
		req.AccessibilityRequirements = place("one")
		return req
	}
	_, err := r.CreateVolume(ctx, request())
	wantCode(t, err, codes.OK)
	for field, change := range map[string]func(*csi.CreateVolumeRequest){
		"capacity_range":             func(q *csi.CreateVolumeRequest) { q.CapacityRange.RequiredBytes++ },
		"capacity_range: it has":     func(q *csi.CreateVolumeRequest) { q.CapacityRange = &csi.CapacityRange{LimitBytes: gi - 1} },
		"parameters":                 func(q *csi.CreateVolumeRequest) { q.Parameters["type"] = "thick" },
		"parameters: it":             func(q *csi.CreateVolumeRequest) { q.Parameters = nil },
		"accessibility_requirements": func(q *csi.CreateVolumeRequest) { q.AccessibilityRequirements = place("two") },
		"volume_capabilities": func(q *csi.CreateVolumeRequest) {
			q.VolumeCapabilities = []*csi.VolumeCapability{capMode(csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY)}
		},
	} {
		req := request()
		change(req)
		_, err := r.CreateVolume(ctx, req)
		wantCode(t, err, codes.AlreadyExists, field, `"v"`)
	}
	if n := r.backend.made.Load(); n != 1 {
		t.Errorf("made %d times", n)
	}
}

// TestCreateExistsBeyondLimits: what the driver's limits forbid today decides only
// about a name that is free. An older release may have made the volume, and a
// final code would make the CO forget it.
func TestCreateExistsBeyondLimits(t *testing.T) {
	r, ctx := startRig(t, func(s *setup) { s.cfg.Traits.Parameters = []backends.Parameter{{Name: "type"}} }), t.Context()
	_, err := r.CreateVolume(ctx, createReq("v"))
	wantCode(t, err, codes.OK)
	for what, change := range map[string]func(*csi.CreateVolumeRequest){
		"size":      func(q *csi.CreateVolumeRequest) { q.CapacityRange.RequiredBytes = 1<<40 + 1 },
		"parameter": func(q *csi.CreateVolumeRequest) { q.Parameters = map[string]string{"unheard-of": "x"} },
	} {
		free, taken := createReq("free"), createReq("v")
		change(free)
		change(taken)
		_, err := r.CreateVolume(ctx, taken)
		wantCode(t, err, codes.AlreadyExists)
		if _, err = r.CreateVolume(ctx, free); status.Code(err) != codes.OutOfRange && status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s, name free: %v", what, err)
		}
	}
	if n := r.backend.made.Load(); n != 1 {
		t.Errorf("made %d volumes", n)
	}
}

func TestCreateRefuses(t *testing.T) {
	r, ctx := startRig(t, func(s *setup) {
		s.cfg.Traits.Parameters = []backends.Parameter{{Name: "class", Required: true}, {Name: "type", Values: []string{"thin", "thick"}, Default: "thin"}}
		s.backend.check = func(req backends.CheckVolumeRequest) error {
			if req.Volume == nil && req.Parameters["class"] == "none" {
				return fmt.Errorf("%w: no such class", backends.ErrInvalid)
			}
			if req.Parameters["type"] == "" {
				return errors.New("the default is missing")
			}
			return nil
		}
	}), t.Context()
	request := func(change func(*csi.CreateVolumeRequest)) *csi.CreateVolumeRequest {
		req := createReq("v")
		req.Parameters = map[string]string{"class": "ssd", "csi.storage.k8s.io/pvc/name": "p", "csi.storage.k8s.io/something-new": "x"}
		change(req)
		return req
	}
	for say, tc := range map[string]struct {
		code   codes.Code
		change func(*csi.CreateVolumeRequest)
	}{
		"name is required":          {codes.InvalidArgument, func(q *csi.CreateVolumeRequest) { q.Name = "" }},
		`"class" is required`:       {codes.InvalidArgument, func(q *csi.CreateVolumeRequest) { delete(q.Parameters, "class") }},
		`"color" is not known`:      {codes.InvalidArgument, func(q *csi.CreateVolumeRequest) { q.Parameters["color"] = "red" }},
		`"type" must be one of`:     {codes.InvalidArgument, func(q *csi.CreateVolumeRequest) { q.Parameters["type"] = "fat" }},
		"no such class":             {codes.InvalidArgument, func(q *csi.CreateVolumeRequest) { q.Parameters["class"] = "none" }},
		"mutable_parameters":        {codes.InvalidArgument, func(q *csi.CreateVolumeRequest) { q.MutableParameters = map[string]string{"a": "b"} }},
		"VOLUME_ACCESSIBILITY":      {codes.InvalidArgument, func(q *csi.CreateVolumeRequest) { q.AccessibilityRequirements = new(csi.TopologyRequirement) }},
		"neither required_bytes":    {codes.InvalidArgument, func(q *csi.CreateVolumeRequest) { q.CapacityRange = new(csi.CapacityRange) }},
		"more than limit_bytes":     {codes.OutOfRange, func(q *csi.CreateVolumeRequest) { q.CapacityRange.LimitBytes = 1 }},
		"volumes have at least":     {codes.OutOfRange, func(q *csi.CreateVolumeRequest) { q.CapacityRange.RequiredBytes = 1 << 41 }},
		"no CLONE_VOLUME":           {codes.InvalidArgument, func(q *csi.CreateVolumeRequest) { q.VolumeContentSource = volumeSource("x") }},
		"no CREATE_DELETE_SNAPSHOT": {codes.InvalidArgument, func(q *csi.CreateVolumeRequest) { q.VolumeContentSource = snapshotSource("x") }},
	} {
		_, err := r.CreateVolume(ctx, request(tc.change))
		wantCode(t, err, tc.code, say)
	}
	if n := r.backend.made.Load(); n != 0 {
		t.Errorf("made %d times", n)
	}
	_, err := r.CreateVolume(ctx, request(func(*csi.CreateVolumeRequest) {}))
	wantCode(t, err, codes.OK)
}

func volumeSource(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

func snapshotSource(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

// TestCreateBadAnswers: the volume is there, whatever is wrong with the answer, so
// the CO has to come back.
func TestCreateBadAnswers(t *testing.T) {
	for say, answer := range map[string]func(*backends.Volume){
		"without an ID":           func(v *backends.Volume) { v.ID = "" },
		"more than 128 bytes":     func(v *backends.Volume) { v.ID = strings.Repeat("i", 129) },
		"or not UTF-8":            func(v *backends.Volume) { v.ID = "\xff" },
		"capacity of -1":          func(v *backends.Volume) { v.Capacity = -1 },
		"asked for was":           func(v *backends.Volume) { v.Capacity = 5 },
		"more than 4096 bytes":    func(v *backends.Volume) { v.Context = map[string]string{"a": strings.Repeat("b", 4096)} },
		"is empty":                func(v *backends.Volume) { v.Topology = []backends.Segments{{"a": "b"}} },
		`repeats secret "key"`:    func(v *backends.Volume) { v.Context = map[string]string{"a": "canary-canary"} },
		"made of a snapshot and":  func(v *backends.Volume) { v.Source = backends.ContentSource{SnapshotID: "a", VolumeID: "b"} },
		"asked for was nothing":   func(v *backends.Volume) { v.Source.VolumeID = "w" },
		"a content source of mor": func(v *backends.Volume) { v.Source.VolumeID = strings.Repeat("i", 129) },
	} {
		t.Run(say, func(t *testing.T) {
			r := startRig(t, func(s *setup) {
				s.backend.answer = func(v *backends.Volume) *backends.Volume {
					c := *v
					answer(&c)
					return &c
				}
			})
			req := createReq("v")
			req.Secrets = map[string]string{"key": "canary-canary"}
			_, err := r.CreateVolume(t.Context(), req)
			wantCode(t, err, codes.Unavailable, say)
		})
	}
	r := startRig(t, func(s *setup) { s.backend.answer = func(*backends.Volume) *backends.Volume { return nil } })
	_, err := r.CreateVolume(t.Context(), createReq("v"))
	wantCode(t, err, codes.Unavailable, "no volume and no error")
}

func TestCreateElsewhere(t *testing.T) {
	r := startRig(t, func(s *setup) {
		s.backend.place = backends.Segments{"a.b/zone": "one"}
		s.cfg.Traits.TopologyKeys = []string{"a.b/zone"}
	})
	req := createReq("v")
	req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: map[string]string{"a.b/zone": "two"}}}}
	_, err := r.CreateVolume(t.Context(), req)
	wantCode(t, err, codes.Unavailable, "none of the requisite")
	req.AccessibilityRequirements.Requisite[0].Segments = map[string]string{"c.d/zone": "two"}
	_, err = r.CreateVolume(t.Context(), req)
	wantCode(t, err, codes.InvalidArgument, "c.d/zone")
	req.AccessibilityRequirements.Requisite[0].Segments = nil
	_, err = r.CreateVolume(t.Context(), req)
	wantCode(t, err, codes.InvalidArgument, "empty topology")
}

// TestCreateLooksAgain: another replica has made the volume meanwhile.
func TestCreateLooksAgain(t *testing.T) {
	r, ctx := startRig(t, func(s *setup) {
		m := s.backend
		m.hook = func(_ context.Context, method string) error {
			if method != "CreateVolume" {
				return nil
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			m.volumes["id-v"] = &backends.Volume{ID: "id-v", Capacity: gi}
			return fmt.Errorf("409: %w", backends.ErrExists)
		}
	}), t.Context()
	made, err := r.CreateVolume(ctx, createReq("v"))
	wantCode(t, err, codes.OK)
	if made.GetVolume().GetVolumeId() != "id-v" {
		t.Errorf("made %v", made)
	}
	_, err = r.CreateVolume(ctx, createReq("w")) // the hook makes v, not w
	wantCode(t, err, codes.Unavailable, "somebody else")
	if n := r.backend.made.Load(); n != 2 {
		t.Errorf("asked %d times to make", n)
	}
}

// TestCreateNotFound: only "this name is free" lets the volume be made.
func TestCreateNotFound(t *testing.T) {
	for _, failure := range []error{
		backends.VolumeNotFound("another"), backends.ErrNotFound, backends.SnapshotNotFound("v"), errors.New("exit status 5"),
		errors.Join(backends.VolumeNotFound("v"), backends.ErrUnavailable),
	} {
		r := startRig(t, func(s *setup) {
			s.backend.hook = func(_ context.Context, method string) error {
				if method == "FindVolume" {
					return failure
				}
				return nil
			}
		})
		_, err := r.CreateVolume(t.Context(), createReq("v"))
		wantCode(t, err, codes.Unavailable)
		if n := r.backend.made.Load(); n != 0 {
			t.Errorf("%v: made %d times", failure, n)
		}
	}
}

// TestCreateNotFoundByID: a backend that says IDs beforehand may look up by ID.
func TestCreateNotFoundByID(t *testing.T) {
	r := startRig(t, func(s *setup) {
		s.backend.hook = func(_ context.Context, method string) error {
			if method == "FindVolume" {
				return backends.VolumeNotFound("id-v")
			}
			return nil
		}
	})
	_, err := r.CreateVolume(t.Context(), createReq("v"))
	wantCode(t, err, codes.OK)
	_, err = r.CreateVolume(t.Context(), createReq("w"))
	wantCode(t, err, codes.Unavailable)
}

func TestCreateConcurrently(t *testing.T) {
	r := startRig(t, nil)
	ids := make(map[string]bool)
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			made, err := r.CreateVolume(t.Context(), createReq("v"))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			ids[made.GetVolume().GetVolumeId()] = true
			mu.Unlock()
		})
	}
	all.Wait()
	if len(ids) != 1 || r.backend.made.Load() != 1 {
		t.Errorf("%d volumes, made %d times", len(ids), r.backend.made.Load())
	}
}

// TestCreateDeadline: the caller gives up at once, the work goes on, the retry
// gets its result.
func TestCreateDeadline(t *testing.T) {
	begun, gone := make(chan struct{}), make(chan struct{})
	tell := sync.OnceFunc(func() { close(begun) })
	r := startRig(t, func(s *setup) {
		s.backend.hook = func(ctx context.Context, method string) error {
			if method != "CreateVolume" {
				return nil
			}
			tell()
			<-gone
			return ctx.Err() // not the caller's
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	_, err := r.CreateVolume(ctx, createReq("v"))
	wantCode(t, err, codes.Canceled)
	close(gone)
	made, err := r.CreateVolume(t.Context(), createReq("v"))
	wantCode(t, err, codes.OK)
	if made.GetVolume().GetVolumeId() != "id-v" || r.backend.made.Load() != 1 {
		t.Errorf("made %v, %d times", made, r.backend.made.Load())
	}

	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = r.CreateVolume(short, createReq("w"))
	if c := status.Code(err); c != codes.OK && c != codes.DeadlineExceeded && c != codes.Aborted {
		t.Errorf("code %v after 1 ms", c)
	}
}

// TestCreatePending: a caller near its deadline is told what it waits for.
func TestCreatePending(t *testing.T) {
	gone := make(chan struct{})
	r := startRig(t, func(s *setup) {
		s.opts.Wait = time.Millisecond
		s.backend.hook = func(ctx context.Context, method string) error {
			if method == "CreateVolume" {
				backends.Progress(ctx, "copying")
				<-gone
			}
			return nil
		}
	})
	first := make(chan error, 1)
	go func() {
		_, err := r.CreateVolume(t.Context(), createReq("v"))
		first <- err
	}()
	for len(r.driver.operations.Running()) == 0 || r.driver.operations.Running()[0].Step == "" {
		time.Sleep(time.Millisecond) // until the first call has begun
	}
	other := createReq("v")
	other.CapacityRange.RequiredBytes = 2 * gi
	_, err := r.CreateVolume(t.Context(), other)
	wantCode(t, err, codes.Aborted, "CreateVolume v", "copying")
	close(gone)
	wantCode(t, <-first, codes.OK)
}

// TestPanicCostsOneCall: the answer tells nothing of the panic, the log tells it
// without the request's secrets.
func TestPanicCostsOneCall(t *testing.T) {
	var calm atomic.Bool
	r, ctx := startRig(t, func(s *setup) {
		s.backend.hook = func(_ context.Context, method string) error {
			if !calm.Load() && (method == "CreateVolume" || method == "ListVolumes") {
				panic("nil map and canary-canary")
			}
			return nil
		}
	}), t.Context()
	req := createReq("v")
	req.Secrets = map[string]string{"key": "canary-canary"}
	_, err := r.CreateVolume(ctx, req)
	wantCode(t, err, codes.Unavailable, "panic in CreateVolume v")
	if strings.Contains(err.Error(), "nil map") || strings.Contains(r.log.String(), "canary-canary") || !strings.Contains(r.log.String(), "nil map") {
		t.Errorf("error %v, log %s", err, r.log)
	}
	_, err = r.ListVolumes(ctx, &csi.ListVolumesRequest{})
	wantCode(t, err, codes.Internal, "panic")
	calm.Store(true)
	_, err = r.CreateVolume(ctx, req)
	wantCode(t, err, codes.OK)
}
