package csidriver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
)

// startModify has volume v, of which iops and tier may change.
func startModify(t *testing.T, change func(*setup, *data)) (*rig, *data) {
	t.Helper()
	r, d := startData(t, func(s *setup, d *data) {
		s.cfg.Traits.Parameters = []backends.Parameter{
			{Name: "class"}, {Name: "iops", Mutable: true, Required: true}, {Name: "tier", Mutable: true, Values: []string{"hot", "cold"}, Default: "hot"},
		}
		if change != nil {
			change(s, d)
		}
	})
	q := createReq("v")
	q.MutableParameters = map[string]string{"iops": "1"}
	_, err := r.CreateVolume(t.Context(), q)
	wantCode(t, err, codes.OK)
	return r, d
}

func modifyReq(pairs ...string) *csi.ControllerModifyVolumeRequest {
	q := &csi.ControllerModifyVolumeRequest{VolumeId: "id-v", MutableParameters: make(map[string]string)}
	for i := 0; i < len(pairs); i += 2 {
		q.MutableParameters[pairs[i]] = pairs[i+1]
	}
	return q
}

// TestModify: the backend gets the patch, no more and no less, and who asked.
func TestModify(t *testing.T) {
	r, d := startModify(t, nil)
	for range 2 {
		q := modifyReq("iops", "5", "csi.storage.k8s.io/pvc/name", "claim")
		_, err := r.ControllerModifyVolume(t.Context(), q)
		wantCode(t, err, codes.OK)
	}
	_, err := r.ControllerModifyVolume(t.Context(), modifyReq("tier", "cold"))
	wantCode(t, err, codes.OK)
	if got := d.volumes["id-v"].Mutable; !maps.Equal(got, map[string]string{"iops": "5", "tier": "cold"}) {
		t.Errorf("the volume has %v", got)
	}
	if len(d.modified) != 3 || d.modified[0].Owner.PVC != "claim" || len(d.modified[0].Mutable) != 1 {
		t.Errorf("asked for %+v", d.modified)
	}
}

// TestModifyRefuses: the backend sees no part of a request that is refused.
func TestModifyRefuses(t *testing.T) {
	r, d := startModify(t, func(_ *setup, d *data) {
		d.check = func(req backends.CheckVolumeRequest) error {
			if req.Volume != nil && req.Mutable["iops"] == "1000000" {
				return fmt.Errorf("%w: not that many", backends.ErrInvalid)
			}
			return nil
		}
	})
	for say, q := range map[string]*csi.ControllerModifyVolumeRequest{
		"volume_id is required":             {MutableParameters: map[string]string{"iops": "5"}},
		`"color" is not known`:              modifyReq("iops", "5", "color", "red"),
		`"class" is not one of those that`:  modifyReq("class", "x", "iops", "5"),
		`"tier" must be one of: hot, cold`:  modifyReq("iops", "5", "tier", "lukewarm"),
		"not that many":                     modifyReq("iops", "1000000", "tier", "cold"),
		"secrets has a key that is not of ": {VolumeId: "id-v", Secrets: map[string]string{"a b": ""}},
	} {
		_, err := r.ControllerModifyVolume(t.Context(), q)
		wantCode(t, err, codes.InvalidArgument, say)
	}
	q := modifyReq("iops", "5")
	q.VolumeId = "nothing"
	_, err := r.ControllerModifyVolume(t.Context(), q)
	wantCode(t, err, codes.NotFound, `"nothing"`)
	// csi-sanity sends no parameters at all (W-5).
	_, err = r.ControllerModifyVolume(t.Context(), modifyReq())
	wantCode(t, err, codes.OK)
	_, err = r.ControllerModifyVolume(t.Context(), &csi.ControllerModifyVolumeRequest{VolumeId: "nothing"})
	wantCode(t, err, codes.NotFound)
	if len(d.modified) != 0 {
		t.Errorf("asked for %+v", d.modified)
	}
}

func TestModifyErrors(t *testing.T) {
	for failure, want := range map[error]codes.Code{
		backends.ErrInvalid:                codes.InvalidArgument,
		backends.VolumeNotFound("id-v"):    codes.NotFound,
		backends.VolumeNotFound("another"): codes.Unavailable,
		errors.New("exit status 5"):        codes.Unavailable,
		backends.ErrNoSpace:                codes.ResourceExhausted,
	} {
		r, _ := startModify(t, func(s *setup, _ *data) {
			s.backend.hook = hookOn("ModifyVolume", func(context.Context) error { return failure })
		})
		_, err := r.ControllerModifyVolume(t.Context(), modifyReq("iops", "5"))
		wantCode(t, err, want)
	}
	r, _ := startModify(t, func(s *setup, _ *data) {
		s.backend.hook = hookOn("ModifyVolume", func(context.Context) error { panic("x") })
	})
	_, err := r.ControllerModifyVolume(t.Context(), modifyReq("iops", "5"))
	wantCode(t, err, codes.Unavailable, "panic in ControllerModifyVolume id-v")
}

// TestModifyDeadline: the change goes on when the caller has gone, and an equal
// call joins it.
func TestModifyDeadline(t *testing.T) {
	begun, gone := make(chan struct{}), make(chan struct{})
	r, d := startModify(t, func(s *setup, _ *data) {
		s.backend.hook = hookOn("ModifyVolume", func(ctx context.Context) error {
			close(begun)
			<-gone
			return ctx.Err()
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	_, err := r.ControllerModifyVolume(ctx, modifyReq("iops", "5"))
	wantCode(t, err, codes.Canceled)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			_, err := r.ControllerModifyVolume(t.Context(), modifyReq("iops", "5"))
			wantCode(t, err, codes.OK)
		})
	}
	for len(r.driver.operations.Running()) != 1 || r.driver.operations.Running()[0].Waiters != 5 {
		time.Sleep(time.Millisecond) // until all five have joined
	}
	close(gone)
	all.Wait()
	if len(d.modified) != 1 {
		t.Errorf("modified %d times", len(d.modified))
	}
}

// TestCreateMutable: mutable parameters at create are of the schema, satisfy what
// is required, and are compared as far as the backend knows them.
func TestCreateMutable(t *testing.T) {
	r, d := startModify(t, nil)
	if req := d.restored[0]; req.Mutable["iops"] != "1" || req.Parameters["iops"] != "" || req.Parameters["tier"] != "hot" {
		t.Errorf("asked for %v, %v", req.Parameters, req.Mutable)
	}
	for say, tc := range map[string]struct {
		code            codes.Code
		params, mutable map[string]string
	}{
		`"color" is not known`:       {codes.InvalidArgument, nil, map[string]string{"iops": "1", "color": "red"}},
		`"class" is not one of`:      {codes.InvalidArgument, nil, map[string]string{"iops": "1", "class": "x"}},
		`"iops" is required`:         {codes.InvalidArgument, nil, map[string]string{"tier": "hot"}},
		`parameter "iops" is requir`: {codes.InvalidArgument, map[string]string{"class": "x"}, nil},
	} {
		q := createReq("new")
		q.Parameters, q.MutableParameters = tc.params, tc.mutable
		_, err := r.CreateVolume(t.Context(), q)
		wantCode(t, err, tc.code, say)
	}
	for _, mutable := range []map[string]string{{"iops": "2"}, {"iops": "1", "color": "red"}, {"iops": "1", "class": "x"}} {
		q := createReq("v")
		q.MutableParameters = mutable
		_, err := r.CreateVolume(t.Context(), q)
		wantCode(t, err, codes.AlreadyExists, "mutable_parameters")
	}
	for _, mutable := range []map[string]string{{"iops": "1"}, {"iops": "1", "tier": "cold"}} {
		q := createReq("v")
		q.MutableParameters = mutable
		_, err := r.CreateVolume(t.Context(), q)
		wantCode(t, err, codes.OK)
	}
}

// TestMutablePrecedence: what stands in both maps is asked for once, by its
// mutable value. What it overrides is not looked at, neither now nor in a retry.
func TestMutablePrecedence(t *testing.T) {
	type params = map[string]string
	for name, schema := range map[string][]backends.Parameter{
		"schema":    {{Name: "class"}, {Name: "tier", Mutable: true, Values: []string{"hot", "cold", "ice"}, Default: "hot"}},
		"any":       nil,
		"no values": {{Name: "class"}, {Name: "tier", Mutable: true, Required: true}},
	} {
		t.Run(name, func(t *testing.T) {
			var checked []backends.CheckVolumeRequest
			r, d := startData(t, func(s *setup, d *data) {
				s.cfg.Traits.Parameters = schema
				d.check = func(req backends.CheckVolumeRequest) error { checked = append(checked, req); return nil }
			})
			create := func(tier string, mutable params) error {
				q := createReq("v")
				q.Parameters, q.MutableParameters = params{"class": "a", "tier": tier, "csi.storage.k8s.io/pvc/name": "p"}, mutable
				_, err := r.CreateVolume(t.Context(), q)
				return err
			}
			wantCode(t, create("warm", params{"tier": "cold"}), codes.OK) // warm is no value of it
			have := d.restored[0]
			for _, got := range []params{have.Parameters, checked[0].Parameters} {
				if !maps.Equal(got, params{"class": "a"}) {
					t.Errorf("the backend got %v", got)
				}
			}
			if !maps.Equal(have.Mutable, params{"tier": "cold"}) || have.Owner.PVC != "p" {
				t.Errorf("the backend got %v of %v", have.Mutable, have.Owner)
			}
			wantCode(t, create("warm", params{"tier": "cold"}), codes.OK)
			wantCode(t, create("hot", params{"tier": "cold"}), codes.OK)
			wantCode(t, create("warm", params{"tier": "ice"}), codes.AlreadyExists, "mutable_parameters")
			if len(d.restored) != 1 {
				t.Errorf("made %d times", len(d.restored))
			}
			said, err := r.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{
				VolumeId: "id-v", VolumeCapabilities: []*csi.VolumeCapability{mountCap()},
				Parameters: params{"class": "a", "tier": "warm"}, MutableParameters: params{"tier": "cold"},
			})
			wantCode(t, err, codes.OK)
			if said.GetConfirmed() == nil {
				t.Errorf("not confirmed: %v", said)
			}
		})
	}
}

func TestValidateMutable(t *testing.T) {
	r, _ := startModify(t, nil)
	for name, tc := range map[string]struct {
		mutable   map[string]string
		confirmed bool
	}{
		"none":         {nil, true},
		"the same":     {map[string]string{"iops": "1"}, true},
		"of the CO":    {map[string]string{"iops": "1", "csi.storage.k8s.io/pvc/name": "x"}, true},
		"another":      {map[string]string{"iops": "2"}, false},
		"unknown":      {map[string]string{"color": "red"}, false},
		"not mutable":  {map[string]string{"class": "x"}, false},
		"not set, but": {map[string]string{"tier": "cold"}, true},
	} {
		said, err := r.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{
			VolumeId: "id-v", VolumeCapabilities: []*csi.VolumeCapability{mountCap()}, MutableParameters: tc.mutable,
		})
		wantCode(t, err, codes.OK)
		if got := said.GetConfirmed() != nil; got != tc.confirmed || got && !maps.Equal(said.GetConfirmed().GetMutableParameters(), tc.mutable) {
			t.Errorf("%s: %v", name, said)
		}
	}
}
