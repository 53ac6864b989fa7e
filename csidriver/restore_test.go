package csidriver

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

// sources are the two kinds of content source, each of volume v of one GiB.
var sources = map[string]struct {
	method, id string
	source     func(string) *csi.VolumeContentSource
}{
	"snapshot": {"RestoreSnapshot", "sid-s", snapshotSource},
	"volume":   {"CloneVolume", "id-v", volumeSource},
}

// startSources has volume v and its snapshot s.
func startSources(t *testing.T, change func(*setup, *data)) (*rig, *data) {
	t.Helper()
	r, d := startData(t, change)
	addVolumes(t, r, "v")
	_, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
	wantCode(t, err, codes.OK)
	return r, d
}

func restoreReq(name string, source *csi.VolumeContentSource) *csi.CreateVolumeRequest {
	q := createReq(name)
	q.VolumeContentSource = source
	return q
}

// TestRestore: the answer names the source, and a retry finds the volume after the
// source is gone.
func TestRestore(t *testing.T) {
	for name, s := range sources {
		t.Run(name, func(t *testing.T) {
			r, d := startSources(t, nil)
			first, err := r.CreateVolume(t.Context(), restoreReq("new", s.source(s.id)))
			wantCode(t, err, codes.OK)
			if !proto.Equal(first.GetVolume().GetContentSource(), s.source(s.id)) {
				t.Errorf("made of %v", first.GetVolume().GetContentSource())
			}
			d.forget(s.id)
			second, err := r.CreateVolume(t.Context(), restoreReq("new", s.source(s.id)))
			wantCode(t, err, codes.OK)
			if !proto.Equal(first, second) || d.made.Load() != 2 {
				t.Errorf("first %v, second %v, made %d times", first, second, d.made.Load())
			}
			_, err = r.CreateVolume(t.Context(), restoreReq("late", s.source(s.id)))
			wantCode(t, err, codes.NotFound, s.id)
		})
	}
}

func TestRestoreOtherSource(t *testing.T) {
	r, d := startSources(t, nil)
	all := map[string]*csi.VolumeContentSource{"none": nil, "snapshot": snapshotSource("sid-s"), "volume": volumeSource("id-v"), "gone": snapshotSource("gone")}
	for made, source := range all {
		if made == "gone" {
			continue
		}
		_, err := r.CreateVolume(t.Context(), restoreReq("of-"+made, source))
		wantCode(t, err, codes.OK)
		for asked, other := range all {
			_, err := r.CreateVolume(t.Context(), restoreReq("of-"+made, other))
			if asked == made {
				wantCode(t, err, codes.OK)
				continue
			}
			wantCode(t, err, codes.AlreadyExists, "volume_content_source")
		}
	}
	if d.made.Load() != 4 {
		t.Errorf("made %d times", d.made.Load())
	}
}

func TestRestoreSizes(t *testing.T) {
	const mi = 1 << 20
	for name, s := range sources {
		t.Run(name, func(t *testing.T) {
			r, d := startSources(t, func(s *setup, _ *data) { s.cfg.Traits.SizeDefault = 4 * mi })
			for i, tc := range []struct {
				source, required, limit int64
				want                    int64 // 0: OUT_OF_RANGE
			}{
				{gi, gi, 0, gi},
				{gi, gi, gi, gi},
				{gi, 2 * gi, 0, 2 * gi},
				{gi, gi - mi, 0, 0},
				{gi, gi - 1, 0, gi}, // rounded
				{gi, 1, 0, 0},
				{gi, 0, 0, gi}, // not the default
				{gi, 0, 2 * gi, gi},
				{gi, 0, gi, gi},
				{gi, 0, gi - 1, 0},
				{gi + 1, 0, 0, gi + mi},
				{gi + 1, gi, 0, 0},
				{1 << 41, 0, 0, 0}, // more than SizeMax
				{0, 0, 0, 4 * mi},  // nobody knows
				{0, mi, 0, mi},
			} {
				d.change("sid-s", func(s *backends.Snapshot) { s.Size = tc.source })
				d.mu.Lock()
				v := *d.volumes["id-v"]
				v.Capacity = tc.source
				d.volumes["id-v"] = &v
				d.mu.Unlock()
				q := restoreReq("new", s.source(s.id))
				q.CapacityRange = &csi.CapacityRange{RequiredBytes: tc.required, LimitBytes: tc.limit}
				if tc.required == 0 && tc.limit == 0 {
					q.CapacityRange = nil
				}
				made, err := r.CreateVolume(t.Context(), q)
				if want := map[bool]codes.Code{true: codes.OutOfRange, false: codes.OK}[tc.want == 0]; want != codes.OK || err != nil {
					wantCode(t, err, want)
				}
				if got := made.GetVolume().GetCapacityBytes(); got != tc.want {
					t.Errorf("%d: %+v: made %d", i, tc, got)
				}
				d.forget("id-new")
			}
		})
	}
}

func TestRestoreRefuses(t *testing.T) {
	r, d := startSources(t, func(_ *setup, d *data) {
		d.check = func(req backends.CheckVolumeRequest) error {
			if req.Volume == nil && req.Source != (backends.ContentSource{}) && req.Parameters["type"] == "thick" {
				return backends.ErrInvalid
			}
			return nil
		}
	})
	made := d.made.Load()
	_, err := r.CreateVolume(t.Context(), restoreReq("new", snapshotSource("nothing")))
	wantCode(t, err, codes.NotFound, "volume_content_source", `snapshot "nothing"`)
	_, err = r.CreateVolume(t.Context(), restoreReq("new", volumeSource("nothing")))
	wantCode(t, err, codes.NotFound, "volume_content_source", `volume "nothing"`)
	_, err = r.CreateVolume(t.Context(), restoreReq("self", volumeSource("id-self")))
	wantCode(t, err, codes.NotFound)
	q := restoreReq("new", snapshotSource("sid-s"))
	q.Parameters = map[string]string{"type": "thick"}
	_, err = r.CreateVolume(t.Context(), q)
	wantCode(t, err, codes.InvalidArgument)
	d.change("sid-s", func(s *backends.Snapshot) { s.Ready = false })
	_, err = r.CreateVolume(t.Context(), restoreReq("new", snapshotSource("sid-s")))
	wantCode(t, err, codes.Aborted, "not ready")
	if d.made.Load() != made {
		t.Errorf("made %d times", d.made.Load()-made)
	}
}

func TestRestoreBadAnswers(t *testing.T) {
	for say, answer := range map[string]func(*backends.Volume){
		"made of nothing, asked for": func(v *backends.Volume) { v.Source = backends.ContentSource{} },
		`made of volume "w"`:         func(v *backends.Volume) { v.Source = backends.ContentSource{VolumeID: "w"} },
		"of a source of 1073741824":  func(v *backends.Volume) { v.Capacity = 5 },
	} {
		r, d := startSources(t, nil)
		d.answer = func(v *backends.Volume) *backends.Volume {
			c := *v
			answer(&c)
			return &c
		}
		q := restoreReq("new", snapshotSource("sid-s"))
		q.CapacityRange = nil
		_, err := r.CreateVolume(t.Context(), q)
		wantCode(t, err, codes.Unavailable, say)
	}
	for _, failure := range []error{backends.SnapshotNotFound("sid-s"), backends.VolumeNotFound("id-v"), errors.New("exit status 1")} {
		for name, s := range sources {
			r, d := startSources(t, nil)
			d.hook = hookOn(s.method, func(context.Context) error { return failure })
			_, err := r.CreateVolume(t.Context(), restoreReq("new", s.source(s.id)))
			wantCode(t, err, codes.Unavailable)
			if t.Failed() {
				t.Fatal(name, failure)
			}
		}
	}
}

// TestRestoreTooSmall: what the first call was refused, its retry is too. A
// snapshot that is gone is not in the way.
func TestRestoreTooSmall(t *testing.T) {
	r, d := startSources(t, nil)
	q := restoreReq("new", snapshotSource("sid-s"))
	q.CapacityRange = nil
	d.answer = func(v *backends.Volume) *backends.Volume {
		v.Capacity = 5
		return v
	}
	for range 2 {
		_, err := r.CreateVolume(t.Context(), q)
		wantCode(t, err, codes.Unavailable, "5 bytes")
	}
	_, err := r.DeleteSnapshot(t.Context(), deleteSnapshot("sid-s"))
	wantCode(t, err, codes.OK)
	_, err = r.CreateVolume(t.Context(), q)
	wantCode(t, err, codes.OK)
}

// TestCloneOfItself: to delete it would be to delete its source.
func TestCloneOfItself(t *testing.T) {
	r, d := startSources(t, nil)
	d.answer = func(v *backends.Volume) *backends.Volume {
		c := *v
		c.ID = c.Source.VolumeID
		return &c
	}
	_, err := r.CreateVolume(t.Context(), restoreReq("new", volumeSource("id-v")))
	wantCode(t, err, codes.Unavailable, "made of itself")
}

// TestRestoreHoldsSource: the source is not deleted below a running copy, and many
// copies of one source run side by side.
func TestRestoreHoldsSource(t *testing.T) {
	for name, s := range sources {
		t.Run(name, func(t *testing.T) {
			var copying sync.WaitGroup
			gone := make(chan struct{})
			copying.Add(2)
			r, d := startSources(t, func(set *setup, _ *data) {
				set.opts.Wait = 1
				set.backend.hook = hookOn(s.method, func(context.Context) error {
					copying.Done()
					<-gone
					return nil
				})
			})
			made := make(chan error, 2)
			for _, name := range []string{"one", "two"} {
				go func() {
					_, err := r.CreateVolume(t.Context(), restoreReq(name, s.source(s.id)))
					made <- err
				}()
			}
			copying.Wait()
			remove := func() (err error) {
				if name == "snapshot" {
					_, err = r.DeleteSnapshot(t.Context(), deleteSnapshot(s.id))
				} else {
					_, err = r.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: s.id})
				}
				return err
			}
			wantCode(t, remove(), codes.Aborted, "CreateVolume")
			close(gone)
			wantCode(t, <-made, codes.OK)
			wantCode(t, <-made, codes.OK)
			wantCode(t, remove(), codes.OK)
			if len(d.volumes)+len(d.snapshots) != 3 {
				t.Errorf("%d volumes, %d snapshots", len(d.volumes), len(d.snapshots))
			}
		})
	}
}

// TestRestoreDeadline: a copy outlives its caller, and the retry joins it.
func TestRestoreDeadline(t *testing.T) {
	for name, s := range sources {
		t.Run(name, func(t *testing.T) {
			begun, gone := make(chan struct{}), make(chan struct{})
			r, d := startSources(t, func(set *setup, _ *data) {
				set.backend.hook = hookOn(s.method, func(ctx context.Context) error {
					close(begun)
					<-gone
					return ctx.Err()
				})
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-begun; cancel() }()
			_, err := r.CreateVolume(ctx, restoreReq("new", s.source(s.id)))
			wantCode(t, err, codes.Canceled)
			close(gone)
			_, err = r.CreateVolume(t.Context(), restoreReq("new", s.source(s.id)))
			wantCode(t, err, codes.OK)
			if d.made.Load() != 2 {
				t.Errorf("made %d times", d.made.Load())
			}
		})
	}
}
