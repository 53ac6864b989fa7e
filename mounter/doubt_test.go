package mounter_test

import (
	"context"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// lost says "not found" of something else, after what was asked for was done.
type lost struct{ *pods }

func (l lost) CreateEphemeral(ctx context.Context, req backends.CreateEphemeralRequest) (*backends.Volume, error) {
	v, err := l.pods.CreateEphemeral(ctx, req)
	if l.fail["create's answer"] != nil {
		return nil, l.fail["create's answer"]
	}
	return v, err
}

func (l lost) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	src, err := l.pods.OpenVolume(ctx, req)
	if l.fail["open's answer"] != nil {
		return nil, l.fail["open's answer"]
	}
	return src, err
}

func newLostRig(t *testing.T) (*rig, lost) {
	var l lost
	r := newRig(t, func(n *node) backends.Node { l = lost{newPods(n)}; return l })
	return r, l
}

// TestStrayNotFound: that something else is not found is no promise that nothing
// was made or opened; what undoes the call finds it.
func TestStrayNotFound(t *testing.T) {
	t.Run("ephemeral", func(t *testing.T) {
		r, l := newLostRig(t)
		l.fail["create's answer"] = backends.VolumeNotFound("another")
		wantKind(t, r.Publish(t.Context(), podRequest(r)), backends.ErrUnavailable)
		must(t, r.Unpublish(t.Context(), podGone(r)))
		l.clean(r)
	})
	t.Run("staged", func(t *testing.T) {
		r, l := newLostRig(t)
		l.fail["open's answer"] = backends.VolumeNotFound("another")
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrUnavailable)
		must(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.staging}))
		l.clean(r)
	})
}

// panicky panics where it is told to.
type panicky struct {
	*pods
	in string
}

func (p *panicky) DeleteEphemeral(ctx context.Context, req backends.DeleteEphemeralRequest) error {
	if p.in == "delete" {
		panic("DeleteEphemeral of a backend")
	}
	return p.pods.DeleteEphemeral(ctx, req)
}

func (p *panicky) CloseVolume(ctx context.Context, req backends.CloseVolumeRequest) error {
	if p.in == "close" {
		panic("CloseVolume of a backend")
	}
	return p.pods.CloseVolume(ctx, req)
}

// TestPanicInRecovery: a backend that panics at one volume does not keep the
// driver of all the others from starting.
func TestPanicInRecovery(t *testing.T) {
	for _, in := range []string{"delete", "close"} {
		var p *panicky
		r := newRig(t, func(n *node) backends.Node { p = &panicky{pods: newPods(n)}; return p })
		must(t, r.Publish(t.Context(), podRequest(r)))
		p.in = in
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", in)
				}
			}()
			_ = r.Unpublish(t.Context(), podGone(r))
		}()
		must(t, r.Restart())
		p.in = ""
		must(t, r.Unpublish(t.Context(), podGone(r)))
		p.clean(r)
	}
}
