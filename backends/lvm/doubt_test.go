package lvm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/lvm/internal/vgda"
)

// Who waited for his turn removes what he looked at, and not what has its name by now.
func TestNameGivenAwayBeforeRemoval(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("linear"))
	createVolume(t, b, "pvc-1", "linear", 8<<20)
	c, old, err := b.volume(t.Context(), makeID("linear", nameOf(kindVolume, "pvc-1")), kindVolume)
	if err != nil {
		t.Fatal(err)
	}
	name := old.name
	f.lvs[1].name = "renamed"
	foreign := &fakeLV{name: name, uuid: f.newUUID(), typ: "linear", extents: 2}
	f.lvs = append(f.lvs, foreign)
	if err := b.remove(t.Context(), c, old); err != nil {
		t.Error(err)
	}
	if !slices.Contains(f.lvs, foreign) || f.named("renamed") != nil {
		t.Error("another LV was removed")
	}
	if err := b.remove(t.Context(), c, old); err != nil || !slices.Contains(f.lvs, foreign) {
		t.Errorf("it is gone: %v", err)
	}
}

// Two callers find the same thin LV that its pool does not have; the second takes away
// nothing of what the first one's caller has made since.
func TestUnbornTwice(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("thin"))
	createVolume(t, b, "pvc-1", "thin", 8<<20)
	c, stale, err := b.volume(t.Context(), makeID("thin", nameOf(kindVolume, "pvc-1")), kindVolume)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.unborn(t.Context(), c, stale); !errors.Is(err, backends.ErrNotFound) {
		t.Fatal(err)
	}
	createVolume(t, b, "pvc-1", "thin", 8<<20)
	if err := b.unborn(t.Context(), c, stale); !errors.Is(err, backends.ErrNotFound) {
		t.Error(err)
	}
	if ready, _ := f.mine(); ready != 1 {
		t.Error("the new volume was removed")
	}
}

func (f *fakeVG) named(name string) *fakeLV {
	for _, l := range f.lvs {
		if l.name == name {
			return l
		}
	}
	return nil
}

// A leg of a mirror that failed and is back gets nothing of a wipe until it is
// refreshed, and what it has would be the next one's who gets its extents.
func TestWipeReachesAllLegs(t *testing.T) {
	for _, when := range []string{"before", "meanwhile", "for good"} {
		f := newFake()
		b := onFake(t, f, optionsFor("raid1"))
		v := createVolume(t, b, "pvc-1", "raid1", 8<<20)
		l := f.lvs[1]
		l.typ = "raid,raid1"
		del := func() error { return b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}) }
		switch when {
		case "before":
			l.health = "refresh needed"
		case "meanwhile":
			b.step = func(s string) {
				if s == "delete:wiping" {
					l.health, b.step = "refresh needed", func(string) {}
				}
			}
			if err := del(); !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("%s: %v", when, err)
			}
		case "for good":
			l.health = "partial"
			if err := del(); !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("%s: %v", when, err)
			}
			l.health = ""
		}
		if err := del(); err != nil || f.named(l.name) != nil {
			t.Errorf("%s: %v", when, err)
		}
		if !slices.ContainsFunc(f.commands, func(c string) bool { return strings.Contains(c, "--refresh") }) {
			t.Errorf("%s: not refreshed", when)
		}
	}
}

// Of two LVs with the tags of one volume none is opened or deleted.
func TestTwoOfOneVolume(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("linear"))
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	twin := *f.lvs[1]
	twin.name, twin.uuid = "twin", f.newUUID()
	f.lvs = append(f.lvs, &twin)
	for what, err := range map[string]error{
		"delete": b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}),
		"open":   second(b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID})),
		"find":   second(b.FindVolume(t.Context(), backends.CreateVolumeRequest{Name: "pvc-1"})),
	} {
		if !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Nor is one that is another driver's as well, or was renamed and cannot be read.
	for _, tag := range []string{tagDriver + "other", tagState + stateDeleting} {
		twin.tags = append(slices.Clone(f.lvs[1].tags), tag)
		f.lvs = []*fakeLV{f.lvs[0], &twin}
		if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("%s: %v", tag, err)
		}
		f.lvs = append(f.lvs, &twin)
		f.lvs[1] = &fakeLV{name: "x", uuid: f.newUUID(), typ: "linear", extents: 1, tags: slices.DeleteFunc(slices.Clone(twin.tags), func(s string) bool { return s == tag })}
	}
}

// A group with members that this process cannot see, for their class is gone from the
// configuration or their tags cannot be read, is not gone.
func TestGroupOfUnknownMembers(t *testing.T) {
	for _, class := range []string{"thin", "none"} {
		f := newFake()
		o := optionsFor("thin")
		b := onFake(t, f, o)
		v := createVolume(t, b, "pvc-1", "thin", 8<<20)
		w := createVolume(t, b, "pvc-2", "thin", 8<<20)
		g, err := b.CreateGroupSnapshot(t.Context(), backends.CreateGroupSnapshotRequest{Name: "g", VolumeIDs: []string{v.ID, w.ID}})
		if err != nil {
			t.Fatal(err)
		}
		if class == "none" {
			o = optionsFor("linear")
		} else {
			last := f.lvs[len(f.lvs)-1]
			last.tags = append(last.tags, tagTime+"7")
		}
		b = onFake(t, f, o)
		for what, err := range map[string]error{
			"delete": b.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: g.ID}),
			"get":    second(b.GroupSnapshot(t.Context(), backends.GroupSnapshotRequest{ID: g.ID})),
		} {
			if !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrNotFound) {
				t.Errorf("%s: %s: %v", class, what, err)
			}
		}
	}
}

// In a pool that is nearly full nothing is cut, also when it was not active before.
func TestCutsInFullPool(t *testing.T) {
	for _, active := range []bool{true, false} {
		f := newFake()
		o := testOptions()
		b := onFake(t, f, o)
		v := createVolume(t, b, "pvc-1", "thin", 8<<20)
		w := createVolume(t, b, "pvc-2", "thin", 8<<20)
		p := f.lvs[0]
		p.filled = "97.00"
		if p.active = active; active {
			p.data = p.filled
		} else {
			p.data = ""
		}
		_, err := b.CreateGroupSnapshot(t.Context(), backends.CreateGroupSnapshotRequest{Name: "g", VolumeIDs: []string{v.ID, w.ID}})
		if !errors.Is(err, backends.ErrNoSpace) {
			t.Errorf("active %v: group: %v", active, err)
		}
		if p.active = active; !active {
			p.data = ""
		}
		_, err = b.CloneVolume(t.Context(), *v, backends.CreateVolumeRequest{Name: "copy", Size: 8 << 20, Parameters: map[string]string{paramClass: "linear"}})
		if !errors.Is(err, backends.ErrNoSpace) {
			t.Errorf("active %v: clone: %v", active, err)
		}
		if n := len(f.lvs); n != 3 {
			t.Errorf("active %v: %d LVs", active, n)
		}
	}
}

// An inline volume of a class that is not configured any more is not gone.
func TestEphemeralOfUnknownClass(t *testing.T) {
	f := newFake()
	b := onFake(t, f, podOptions())
	v, err := pod(t, b, "csi-1", "size", "8Mi", paramClass, "thin")
	if err != nil {
		t.Fatal(err)
	}
	o := optionsFor("linear")
	o.EphemeralMax = 64 << 20
	b = onFake(t, f, o)
	if err := b.DeleteEphemeral(t.Context(), backends.DeleteEphemeralRequest{ID: "csi-1", VolumeID: v.ID}); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// An inline volume over which lvm was killed is made good as any other.
func TestEphemeralVouched(t *testing.T) {
	f := newFake()
	b := onFake(t, f, podOptions())
	v, err := pod(t, b, "csi-1", "size", "8Mi", paramClass, "linear")
	if err != nil {
		t.Fatal(err)
	}
	f.lvs[1].bytes = []byte(strings.Repeat("x", 4096)) // of somebody, in a signature's place
	o := podOptions()
	o.Half = NodeHalf
	b = onFake(t, f, o)
	if again, err := pod(t, b, "csi-1", "size", "8Mi", paramClass, "linear"); err != nil || again.ID != v.ID {
		t.Fatalf("%+v, %v", again, err)
	}
	if f.lvs[1].bytes[0] != 0 {
		t.Error("its first blocks are as they were")
	}
	// One that its pool does not have is made anew.
	if _, err := pod(t, b, "csi-2", "size", "8Mi", paramClass, "thin"); err != nil {
		t.Fatal(err)
	}
	l := f.lvs[2]
	l.active = false
	f.before = func(args []string) error {
		if args[0] == "lvchange" && slices.Contains(f.lvs, l) {
			return exit(5, "device-mapper: reload ioctl failed: No data available")
		}
		return nil
	}
	b = onFake(t, f, o)
	if _, err := pod(t, b, "csi-2", "size", "8Mi", paramClass, "thin"); err != nil || slices.Contains(f.lvs, l) || len(f.lvs) != 3 {
		t.Errorf("%v, %d LVs", err, len(f.lvs))
	}
}

// formats is a kernel where a volume is formatted while its device is being opened.
type formats struct {
	*fakeVG
	l *fakeLV
}

func (k formats) exclusive(path, uuid string) (disk, error) {
	k.l.tags = append(k.l.tags, tagFormat+"ext4:done")
	k.l.bytes = []byte("data")
	return k.fakeVG.exclusive(path, uuid)
}

// What was formatted meanwhile is not made zeros.
func TestVouchLooksAgain(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("linear"))
	createVolume(t, b, "pvc-1", "linear", 8<<20)
	b = onFake(t, f, optionsFor("linear"))
	b.kernel = formats{f, f.lvs[1]}
	if _, err := b.FindVolume(t.Context(), backends.CreateVolumeRequest{Name: "pvc-1"}); err != nil {
		t.Fatal(err)
	}
	if string(f.lvs[1].bytes) != "data" {
		t.Error("it was overwritten")
	}
}

// What lvm alone knows of RAID is in the list of what is not healthy, whatever reads the
// metadata.
func TestHealthListAsksLVM(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("raid1"))
	v := createVolume(t, b, "pvc-1", "raid1", 8<<20)
	l := f.lvs[1]
	l.typ, l.health = "raid,raid1", "refresh needed"
	b.kernel = direct{f}
	k := b.known(testVG)
	k.paths, k.mark = map[string]string{"x": "/dev/x"}, "as it was"
	k.now = &vgda.Group{Name: testVG, ID: f.uuid, Extent: fakeExtent, Volumes: []vgda.Volume{{Name: l.name, ID: l.uuid, Tags: l.tags, Type: "raid1"}}}
	b.lookAt = func(string) (*vgda.Copy, error) { return &vgda.Copy{Disk: "x", Mark: "as it was"}, nil }
	list, _, err := b.ListVolumeHealth(t.Context(), backends.ListVolumeHealthRequest{})
	if err != nil || len(list) != 1 || list[0].ID != v.ID {
		t.Errorf("%+v, %v", list, err)
	}
}

// The number of a snapshot that is deleted while the metadata of its pool is read may be
// another's by then: what was read is not what is asked for.
func TestChangedBlocksOfOneThatGoes(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("thin"))
	v := createVolume(t, b, "pvc-1", "thin", 8<<20)
	cut := func(name string) *backends.Snapshot {
		s, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: name, VolumeID: v.ID})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	base := cut("base")
	f.lvs[1].bytes = []byte("new data")
	target := cut("target")
	b.step = func(s string) {
		if s != "changed:noted" {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lvs[2] = &fakeLV{name: "next", uuid: f.newUUID(), typ: "thin,sparse", extents: 2, pool: testPool, thin: f.lvs[2].thin, bytes: []byte("new data")}
	}
	_, err := b.ChangedBlocks(t.Context(), backends.ChangedBlocksRequest{Base: base.ID, Target: target.ID})
	if !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// A copy that is asked for again with other mutable parameters has those.
func TestCopyModifiedMeanwhile(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("linear"))
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	ctx, cancel := context.WithCancel(t.Context())
	b.step = func(s string) {
		if s == "copy:piece" {
			cancel()
		}
	}
	req := backends.CreateVolumeRequest{Name: "copy", Size: 8 << 20}
	if _, err := b.CloneVolume(ctx, *v, req); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	req.Mutable = map[string]string{paramReadAhead: "1Mi"}
	got, err := b.CloneVolume(t.Context(), *v, req)
	if err != nil || got.Mutable[paramReadAhead] != "1Mi" {
		t.Errorf("%+v, %v", got, err)
	}
}

// Who was about to take a half-made copy away, as the sweep after a start, and had to
// wait for a call that goes on with it, leaves the volume that it has become.
func TestSweepOfCopyThatIsGoneOnWith(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("linear"))
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	id := makeID("linear", nameOf(kindVolume, "copy"))
	var swept chan struct{}
	b.step = func(s string) {
		if s != "copy:piece" || swept != nil {
			return
		}
		_, half, err := b.volume(t.Context(), id, kindVolume)
		if err != nil {
			t.Error(err)
		}
		swept = make(chan struct{})
		go func() {
			defer close(swept)
			b.finish(half)
		}()
	}
	if _, err := b.CloneVolume(t.Context(), *v, backends.CreateVolumeRequest{Name: "copy", Size: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	<-swept
	if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: id}); err != nil {
		t.Errorf("a volume that is ready: %v", err)
	}
}

// Of a snapshot that is deleted no half-made copy stays: who asks for the copy again gets
// a final answer.
func TestHalfCopyGoesWithItsSnapshot(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("linear"))
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	s, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.step = func(s string) {
		if s == "copy:piece" {
			cancel()
		}
	}
	req := backends.CreateVolumeRequest{Name: "copy", Size: 8 << 20}
	if _, err := b.RestoreSnapshot(ctx, *s, req); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}); err != nil {
		t.Fatal(err)
	}
	b.jobs.Wait()
	if _, err := b.RestoreSnapshot(t.Context(), *s, req); !errors.Is(err, backends.ErrNotFound) {
		t.Error(err)
	}
	if ready, other := f.mine(); ready != 1 || other != 0 {
		t.Errorf("%d ready, %d not", ready, other)
	}
}
