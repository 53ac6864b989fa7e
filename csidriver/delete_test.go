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
