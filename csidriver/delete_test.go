package csidriver

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
)

// TestDeleteNegatesCreate: the backend says the ID beforehand, so a delete stops
// the creation of that very volume.
func TestDeleteNegatesCreate(t *testing.T) {
	begun := make(chan struct{})
	r := startRig(t, func(s *setup) {
		s.backend.hook = func(ctx context.Context, method string) error {
			if method != "CreateVolume" {
				return nil
			}
			close(begun)
			<-ctx.Done()
			return errors.New("signal: killed")
		}
	})
	created := make(chan error, 1)
	go func() {
		_, err := r.CreateVolume(t.Context(), createReq("v"))
		created <- err
	}()
	<-begun
	_, err := r.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "id-v"})
	wantCode(t, err, codes.OK)
	wantCode(t, <-created, codes.Aborted)
}

// TestDeleteAfterReboot: what was staged before a reboot of the node is not in use; what
// cannot be given back is, and the backend is not asked.
func TestDeleteAfterReboot(t *testing.T) {
	asked := 0
	r := startRig(t, func(s *setup) {
		s.backend.hook = func(_ context.Context, method string) error {
			if method == "DeleteVolume" {
				asked++
			}
			return nil
		}
	})
	made, err := r.CreateVolume(t.Context(), createReq("v"))
	wantCode(t, err, codes.OK)
	id := made.GetVolume().GetVolumeId()
	_, err = r.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: "/s/1", VolumeCapability: mountCap()})
	wantCode(t, err, codes.OK)
	del := &csi.DeleteVolumeRequest{VolumeId: id}
	_, err = r.DeleteVolume(t.Context(), del)
	wantCode(t, err, codes.FailedPrecondition, "in use at /")
	r.engine.hook = func(_ context.Context, method string) error {
		if method == "Release" {
			return fmt.Errorf("%w: the disk of the records is full", backends.ErrUnavailable)
		}
		return nil
	}
	_, err = r.DeleteVolume(t.Context(), del)
	wantCode(t, err, codes.Unavailable, "full")
	if asked > 0 {
		t.Error("the backend was asked to delete a volume in use")
	}
	r.engine.hook = nil
	r.engine.reboot()
	_, err = r.DeleteVolume(t.Context(), del)
	wantCode(t, err, codes.OK)
	if asked != 1 {
		t.Errorf("the backend was asked %d times", asked)
	}
}

func TestDelete(t *testing.T) {
	for name, tc := range map[string]struct {
		failure error
		want    codes.Code
	}{
		"unknown":                     {backends.VolumeNotFound("x"), codes.OK},
		"unknown, wrapped":            {fmt.Errorf("rm: %w", backends.VolumeNotFound("x")), codes.OK},
		"something else is not there": {backends.VolumeNotFound("pool"), codes.Unavailable},
		"a snapshot is not there":     {backends.SnapshotNotFound("x"), codes.Unavailable},
		"nameless":                    {backends.ErrNotFound, codes.Unavailable},
		"not found, in doubt":         {errors.Join(backends.VolumeNotFound("x"), backends.ErrUnavailable), codes.Unavailable},
		"in use":                      {backends.ErrInUse, codes.FailedPrecondition},
		"no kind":                     {errors.New("exit status 5"), codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			r := startRig(t, func(s *setup) {
				s.backend.hook = func(_ context.Context, method string) error {
					if method == "DeleteVolume" {
						return tc.failure
					}
					return nil
				}
			})
			_, err := r.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "x"})
			wantCode(t, err, tc.want)
		})
	}
}
