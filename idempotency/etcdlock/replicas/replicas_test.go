package replicas

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pause lets others in, where nobody should be.
func pause(context.Context, string, string) {
	time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
}

func (r *rig) mustNotOverlap() {
	r.t.Helper()
	if overlaps, fenced := r.storage.tally(); overlaps > 0 || fenced > 0 {
		r.t.Errorf("%d changes of an object at once, %d fenced off", overlaps, fenced)
	}
}

// All replicas create the same volumes at once: each is made once, and has one ID.
func TestOneVolume(t *testing.T) {
	r := newRig(t)
	r.storage.setSlow(pause)
	replicas := []*controller{r.replica("a", long), r.replica("b", long), r.replica("c", long)}
	ids := make(map[string]string)
	for round := range 5 {
		name := fmt.Sprintf("one-%d", round)
		got := make([]string, 9)
		all(got, func(i int, _ string) { got[i] = replicas[i%3].create(name) })
		for _, id := range got {
			if id == "" || id != got[0] {
				t.Errorf("%s has the IDs %q", name, got)
			}
		}
		if n := r.storage.madeOf(name); n != 1 {
			t.Errorf("%s was made %d times", name, n)
		}
		ids[name] = got[0]
	}
	if left := replicas[0].volumes(); len(left) != len(ids) {
		t.Errorf("%d volumes; want %d", len(left), len(ids))
	}
	all(replicas, func(_ int, c *controller) {
		for _, id := range ids {
			c.remove(id)
		}
	})
	if left := replicas[1].volumes(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	r.mustNotOverlap()
	r.WantKeys("/replicas/held/", 0)
}

// Replicas create, grow, clone and delete the same few volumes in any order: never
// two at once, and never a token of the past.
func TestSameNames(t *testing.T) {
	r := newRig(t)
	r.storage.setSlow(pause)
	replicas := []*controller{r.replica("a", long), r.replica("b", long), r.replica("c", long)}
	all(make([]struct{}, 9), func(i int, _ struct{}) {
		c, rnd := replicas[i%3], rand.New(rand.NewPCG(7, uint64(i)))
		for range 12 {
			c.change(rnd)
		}
	})
	for _, id := range replicas[0].volumes() {
		replicas[1].remove(id)
	}
	if left := replicas[2].volumes(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	r.mustNotOverlap()
	r.WantKeys("/replicas/held/", 0)
}

// change does something with one of three volumes, or with a clone of one.
func (c *controller) change(rnd *rand.Rand) {
	name := fmt.Sprintf("v-%d", rnd.IntN(3))
	id := c.mine.id(name)
	switch rnd.IntN(5) {
	case 0, 1:
		c.create(name)
	case 2:
		size := int64(1+rnd.IntN(1000)) << 20
		c.retry(func(ctx context.Context) error {
			_, err := c.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: size}})
			return err
		}, codes.OK, codes.NotFound)
	case 3:
		q := createReq(fmt.Sprintf("clone-%d-of-%s", rnd.IntN(2), name))
		q.CapacityRange = nil
		q.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id},
		}}
		c.retry(func(ctx context.Context) error { _, err := c.CreateVolume(ctx, q); return err }, codes.OK, codes.NotFound)
	case 4:
		c.remove(id)
	}
}

// blocked is a change of one replica that waits in the storage, deaf to its
// context, until it is let go.
type blocked struct {
	begun, cancelled, leave chan struct{}
}

func (s *storage) block(replica, method string) *blocked {
	b := &blocked{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	var once atomic.Bool
	s.setSlow(func(ctx context.Context, r, m string) {
		if r != replica || m != method || once.Swap(true) {
			return
		}
		close(b.begun)
		<-ctx.Done()
		close(b.cancelled)
		<-b.leave
	})
	return b
}

// A replica that loses its lease in the middle of a change says so, with a code
// that is not final; another one makes the volume; and what the first one does
// later is kept out by its token.
func TestLeaseIsLost(t *testing.T) {
	r := newRig(t)
	a, b := r.replica("a", short), r.replica("b", long)
	in := r.storage.block("a", "CreateVolume")
	answer := make(chan error, 1)
	go func() { _, err := a.CreateVolume(t.Context(), createReq("v")); answer <- err }()
	<-in.begun
	a.net.Cut()
	<-in.cancelled // at two thirds of the lease
	id := b.create("v")
	close(in.leave)
	if err := <-answer; status.Code(err) != codes.Unavailable {
		t.Errorf("who lost its lease answers %v", err)
	}
	if _, fenced := r.storage.tally(); fenced != 1 || r.storage.madeOf("v") != 1 {
		t.Errorf("fenced off %d times, made %d times", fenced, r.storage.madeOf("v"))
	}
	a.net.Heal()
	if again := a.create("v"); again != id {
		t.Errorf("a retry says %q, the volume is %q", again, id)
	}
	a.remove(id)
	r.WantKeys("/replicas/held/", 0)
}

// What a replica copies, another one does not delete; when the first one has lost its
// lease it does, and the copy is kept out by the token of its source.
func TestSourceIsHeld(t *testing.T) {
	// A machine that stands still for 4 s loses the short lease too early.
	for ttl := short; !sourceIsHeld(t, ttl); ttl *= 4 {
		if ttl > long {
			t.Fatal("the lease is always lost before it is to be")
		}
	}
}

// sourceIsHeld is false of a lease that was lost too early.
func sourceIsHeld(t *testing.T, ttl time.Duration) bool {
	t.Helper()
	r := newRig(t)
	a, b := r.replica("a", ttl), r.replica("b", long)
	id := a.create("v")
	in := r.storage.block("a", "CloneVolume")
	answer := make(chan error, 1)
	go func() {
		q := createReq("clone")
		q.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id}}}
		_, err := a.CreateVolume(t.Context(), q)
		answer <- err
	}()
	<-in.begun
	deleted := status.Error(codes.DeadlineExceeded, "not asked")
	for limit := 2 * time.Second; status.Code(deleted) == codes.DeadlineExceeded && limit < time.Minute; limit *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), limit) // a busy machine may miss it
		_, deleted = b.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
		cancel()
	}
	select {
	case <-in.cancelled:
		close(in.leave)
		<-answer
		return false
	default:
	}
	if status.Code(deleted) != codes.Aborted {
		t.Errorf("deleted what another replica copies: %v", deleted)
	}
	a.net.Cut()
	<-in.cancelled
	b.remove(id)
	close(in.leave)
	if err := <-answer; status.Code(err) != codes.Unavailable {
		t.Errorf("the clone answers %v", err)
	}
	if _, fenced := r.storage.tally(); fenced != 1 || r.storage.madeOf("clone") != 0 {
		t.Errorf("fenced off %d times, made %d times", fenced, r.storage.madeOf("clone"))
	}
	return true
}

// Without etcd every call is answered in its time, with a code that is not final,
// and nothing is done; when it is there again, everything goes on.
func TestPartition(t *testing.T) {
	for name, cut := range map[string]func(*rig, *controller) (heal func()){
		"cut off": func(_ *rig, c *controller) func() { c.net.Cut(); return c.net.Heal },
		"etcd is killed": func(r *rig, _ *controller) func() {
			r.Kill()
			return func() {
				if !r.Run() {
					t.Fatal("etcd does not start again")
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a := r.replica("a", long)
			id := a.create("v")
			heal := cut(r, a)
			for what, call := range map[string]func(context.Context) error{
				"create": func(ctx context.Context) error { _, err := a.CreateVolume(ctx, createReq("w")); return err },
				"delete": func(ctx context.Context) error {
					_, err := a.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
					return err
				},
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				if err := call(ctx); final(err) {
					t.Errorf("%s without etcd: %v", what, err)
				}
				cancel()
			}
			if n := r.storage.madeOf("w"); n > 0 || len(a.volumes()) != 1 {
				t.Errorf("made %d, there are %q", n, a.volumes())
			}
			heal()
			a.remove(a.create("w"))
			a.remove(id)
			r.WantKeys("/replicas/held/", 0)
		})
	}
}
