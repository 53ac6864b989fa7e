package lvm

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
)

// The rows of the failure matrix, over the fake: a driver that dies at each command
// of each operation. The VM has those that need a kernel.

// dieAt lets the driver die before or after its n-th command from now on: that one
// and all later ones fail.
func (f *fakeVG) dieAt(n int, before bool) (died func() bool) {
	killed := &command.ExitError{Argv: "lvm", Code: -1, Signal: "killed"}
	count, dead := 0, false
	f.before = func([]string) error {
		if dead {
			return killed
		}
		count++
		if count == n && before {
			dead = true
			return killed
		}
		return nil
	}
	f.after = func([]string) error {
		if count == n && !before {
			dead = true
			return killed
		}
		return nil
	}
	return func() bool { return dead }
}

func (f *fakeVG) revive() { f.before, f.after = nil, nil }

// mine are the LVs of the driver by state.
func (f *fakeVG) mine() (ready, other int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.lvs {
		switch tags := strings.Join(l.tags, " "); {
		case !strings.Contains(tags, tagDriver):
		case strings.Contains(tags, tagState+stateReady):
			ready++
		default:
			other++
		}
	}
	return ready, other
}

// killed runs an operation that dies at each of its moments, restarts the driver and
// goes on with then.
func killed(t *testing.T, class string, setup, op func(t *testing.T, b *Backend) error, then func(t *testing.T, f *fakeVG, b *Backend)) {
	t.Helper()
	for n := 1; ; n++ {
		for _, before := range []bool{true, false} {
			f := newFake()
			b := onFake(t, f, optionsFor(class))
			if setup != nil {
				if err := setup(t, b); err != nil {
					t.Fatal(err)
				}
			}
			died := f.dieAt(n, before)
			err := op(t, b)
			if !died() {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err != nil {
				for _, final := range []error{backends.ErrNotFound, backends.ErrNoSpace, backends.ErrFailed, backends.ErrInvalid} {
					if errors.Is(err, final) {
						t.Errorf("killed at %d: a final error: %v", n, err)
					}
				}
			}
			f.revive()
			_ = b.Close()
			b = onFake(t, f, optionsFor(class))
			t.Run(fmt.Sprintf("%s %d before=%v", class, n, before), func(t *testing.T) {
				if err := b.RecoverController(t.Context()); err != nil {
					t.Fatal(err)
				}
				then(t, f, b)
			})
		}
	}
}

func create(name, class string) func(*testing.T, *Backend) error {
	return func(t *testing.T, b *Backend) error {
		_, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: name, Size: 8 << 20, Parameters: map[string]string{paramClass: class}})
		return err
	}
}

// again is what a CO does: it looks, and makes what is not there.
func again(t *testing.T, b *Backend, name, class string) *backends.Volume {
	t.Helper()
	req := backends.CreateVolumeRequest{Name: name, Size: 8 << 20, Parameters: map[string]string{paramClass: class}}
	v, err := b.FindVolume(t.Context(), req)
	if errors.Is(err, backends.ErrNotFound) {
		v, err = b.CreateVolume(t.Context(), req)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLVMCreateKilled(t *testing.T) {
	for _, class := range []string{"linear", "thin", "raid1"} {
		killed(t, class, nil, create("pvc-1", class), func(t *testing.T, f *fakeVG, b *Backend) {
			if _, other := f.mine(); other != 0 {
				t.Errorf("%d half-made are left after a start", other)
			}
			again(t, b, "pvc-1", class)
			if ready, other := f.mine(); ready != 1 || other != 0 {
				t.Errorf("%d ready, %d not", ready, other)
			}
		})
		killed(t, class, nil, create("pvc-1", class), func(t *testing.T, f *fakeVG, b *Backend) {
			id := makeID(class, nameOf(kindVolume, "pvc-1"))
			if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: id}); err != nil && !errors.Is(err, backends.ErrNotFound) {
				t.Fatal(err)
			}
			if ready, other := f.mine(); ready+other != 0 {
				t.Errorf("%d ready, %d not", ready, other)
			}
		})
	}
}

func TestLVMDeleteKilled(t *testing.T) {
	for _, class := range []string{"linear", "thin"} {
		id := makeID(class, nameOf(kindVolume, "pvc-1"))
		remove := func(t *testing.T, b *Backend) error {
			return b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: id})
		}
		killed(t, class, create("pvc-1", class), remove, func(t *testing.T, f *fakeVG, b *Backend) {
			b.jobs.Wait() // the sweep
			if err := remove(t, b); err != nil && !errors.Is(err, backends.ErrNotFound) {
				t.Fatal(err)
			}
			if ready, other := f.mine(); ready+other != 0 {
				t.Errorf("%d ready, %d not", ready, other)
			}
		})
	}
}

func TestLVMSnapshotAndRestoreKilled(t *testing.T) {
	id := makeID("thin", nameOf(kindVolume, "pvc-1"))
	cut := func(t *testing.T, b *Backend) error {
		_, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: id})
		return err
	}
	killed(t, "thin", create("pvc-1", "thin"), cut, func(t *testing.T, f *fakeVG, b *Backend) {
		if _, err := b.FindSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: id}); errors.Is(err, backends.ErrNotFound) {
			err = cut(t, b)
			if err != nil {
				t.Fatal(err)
			}
		}
		if ready, other := f.mine(); ready != 2 || other != 0 {
			t.Errorf("%d ready, %d not", ready, other)
		}
	})
	setup := func(t *testing.T, b *Backend) error { return errors.Join(create("pvc-1", "thin")(t, b), cut(t, b)) }
	restore := func(t *testing.T, b *Backend) error {
		_, err := b.RestoreSnapshot(t.Context(), backends.Snapshot{ID: makeID("thin", nameOf(kindSnapshot, "s"))},
			backends.CreateVolumeRequest{Name: "copy", Size: 20 << 20})
		return err
	}
	killed(t, "thin", setup, restore, func(t *testing.T, f *fakeVG, b *Backend) {
		v, err := b.FindVolume(t.Context(), backends.CreateVolumeRequest{Name: "copy"})
		if errors.Is(err, backends.ErrNotFound) {
			if err := restore(t, b); err != nil {
				t.Fatal(err)
			}
			v, err = b.FindVolume(t.Context(), backends.CreateVolumeRequest{Name: "copy"})
		}
		if err != nil || v.Capacity != 20<<20 || v.Source.SnapshotID == "" {
			t.Errorf("%+v, %v", v, err)
		}
	})
}

func TestLVMExpandKilled(t *testing.T) {
	id := makeID("linear", nameOf(kindVolume, "pvc-1"))
	grow := func(t *testing.T, b *Backend) error {
		n, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: id, Size: 16 << 20})
		if err == nil && n != 16<<20 {
			t.Errorf("%d bytes", n)
		}
		return err
	}
	killed(t, "linear", create("pvc-1", "linear"), grow, func(t *testing.T, _ *fakeVG, b *Backend) {
		if err := grow(t, b); err != nil {
			t.Error(err)
		}
	})
}

// A format that may be half done is never taken for done, nor a done one for half.
func TestLVMFormatKilled(t *testing.T) {
	id := makeID("linear", nameOf(kindVolume, "pvc-1"))
	record := func(f backends.FormatState) func(*testing.T, *Backend) error {
		return func(t *testing.T, b *Backend) error {
			return b.RecordFormat(t.Context(), backends.RecordFormatRequest{ID: id, Format: f, FSType: "ext4"})
		}
	}
	setup := func(t *testing.T, b *Backend) error {
		return errors.Join(create("pvc-1", "linear")(t, b), record(backends.FormatStarted)(t, b))
	}
	killed(t, "linear", setup, record(backends.FormatDone), func(t *testing.T, _ *fakeVG, b *Backend) {
		_, v, err := b.ready(t.Context(), id, kindVolume)
		if err != nil {
			t.Fatal(err)
		}
		state, _ := v.own.format()
		if state != backends.FormatStarted && state != backends.FormatDone {
			t.Errorf("%v", state)
		}
		if state == backends.FormatDone {
			if err := record(backends.FormatStarted)(t, b); !errors.Is(err, backends.ErrPrecondition) {
				t.Errorf("formatted twice: %v", err)
			}
		}
	})
}

func TestLVMDiskMissing(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("linear"))
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	f.missing = 1
	absent := makeID("linear", nameOf(kindVolume, "other"))
	for what, err := range map[string]error{
		"look":   second(b.Volume(t.Context(), backends.VolumeRequest{ID: absent})),
		"find":   second(b.FindVolume(t.Context(), backends.CreateVolumeRequest{Name: "other"})),
		"delete": b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}),
		"gone":   b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: absent}),
		"create": create("other", "linear")(t, b),
		"close":  b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: absent}),
		"expand": second(b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 1 << 30})),
		"list":   third(b.ListVolumes(t.Context(), backends.ListVolumesRequest{})),
	} {
		if !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil {
		t.Errorf("a volume that is there: %v", err)
	}
	f.missing = 0
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); err != nil {
		t.Errorf("the disk is back: %v", err)
	}
}

func second[T any](_ T, err error) error        { return err }
func third[A, B any](_ A, _ B, err error) error { return err }

// A VG with the name of the one that volumes are in does not tell that they are gone.
func TestVGReplaced(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("linear"))
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	f.uuid, f.lvs = "yy4U8q-kv4Z-DXmg-NnP4-mrAJ-QQRV-vXdfEe", f.lvs[:1]
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrUnavailable) {
		t.Error(err)
	}
	o := optionsFor("linear")
	o.Classes[0].VGUUID = "zz4U8q-kv4Z-DXmg-NnP4-mrAJ-QQRV-vXdfEe"
	if _, err := onFake(t, f, o).FindVolume(t.Context(), backends.CreateVolumeRequest{Name: "a"}); !errors.Is(err, backends.ErrUnavailable) {
		t.Error(err)
	}
}

// What one class says of the UUID of its VG holds for all that are in it: whoever looks
// at a VG does so for the calls of others, too.
func TestVGReplacedForAll(t *testing.T) {
	uuid := "yy4U8q-kv4Z-DXmg-NnP4-mrAJ-QQRV-vXdfEe"
	for _, i := range []int{0, 1} {
		o := testOptions()
		o.Classes[i].VGUUID = uuid
		b := onFake(t, newFake(), o)
		for _, class := range []string{"linear", "thin"} {
			id := makeID(class, nameOf(kindVolume, "gone"))
			if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: id}); !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("%d: %s: %v", i, class, err)
			}
		}
	}
	o := testOptions()
	o.Classes[0].VGUUID, o.Classes[1].VGUUID = uuid, "zz4U8q-kv4Z-DXmg-NnP4-mrAJ-QQRV-vXdfEe"
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "another UUID") {
		t.Error(err)
	}
}

func TestVolumeRenamedByHand(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("linear"))
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	f.lvs[1].name = "important"
	if got, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil || got.ID != v.ID {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestForeignIsNeverTouched(t *testing.T) {
	f := newFake()
	name := nameOf(kindVolume, "pvc-1")
	foreign := &fakeLV{name: name, uuid: f.newUUID(), typ: "linear", extents: 2, tags: []string{tagDriver + "other", tagState + stateCreating}}
	f.lvs = append(f.lvs, foreign)
	b := onFake(t, f, optionsFor("linear"))
	if err := b.RecoverController(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.RecoverNode(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := create("pvc-1", "linear")(t, b); !errors.Is(err, backends.ErrIncompatible) {
		t.Errorf("create: %v", err)
	}
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: makeID("linear", name)}); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("delete: %v", err)
	}
	// A snapshot that an administrator made keeps its volume.
	v := createVolume(t, b, "pvc-2", "linear", 8<<20)
	f.lvs = append(f.lvs, &fakeLV{name: "backup", uuid: f.newUUID(), typ: "linear", extents: 1, origin: nameOf(kindVolume, "pvc-2")})
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("delete: %v", err)
	}
	if _, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 16 << 20}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("expand: %v", err)
	}
	f.lvs[len(f.lvs)-1].pool = testPool // a thin volume that reads what it lacks from ours
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("delete an external origin: %v", err)
	}
	for _, c := range f.commands {
		if strings.HasPrefix(c, "lv") && !strings.HasPrefix(c, "lvs") && (strings.HasSuffix(c, "/"+name) || strings.HasSuffix(c, "/backup")) {
			t.Errorf("touched: %s", c)
		}
	}
}
