package csidriver

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
)

// TestDeleteGroupLookFails: what goes wrong before the group is locked is no
// answer while an equal call deletes it, and members that became known only then
// are not touched unlocked.
func TestDeleteGroupLookFails(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	var failing atomic.Int32
	r, d := startGroups(t, func(s *setup, _ *data) {
		s.opts.Wait = 1
		s.backend.hook = func(_ context.Context, method string) error {
			switch {
			case method == "GroupSnapshot" && failing.Add(-1) >= 0:
				return fmt.Errorf("%w: cannot say", backends.ErrFailed)
			case method == "DeleteGroupSnapshot":
				begun <- struct{}{}
				<-release
			}
			return nil
		}
	})
	r.group(t)
	first := make(chan error, 1)
	go func() {
		_, err := r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g"))
		first <- err
	}()
	<-begun
	failing.Store(1)
	_, err := r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g"))
	wantCode(t, err, codes.Aborted, "DeleteVolumeGroupSnapshot")
	close(release)
	wantCode(t, <-first, codes.OK)

	r.group(t)
	failing.Store(1)
	_, err = r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g"))
	wantCode(t, err, codes.Unavailable, "was not known when it was locked")
	if len(d.groups) != 1 {
		t.Errorf("left %v", d.groups)
	}
}
