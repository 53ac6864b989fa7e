package lvm

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// What is cut is what the call has looked at, by its UUID, as it is in the VG's turn: its
// name may be another's by then, with other data.
func TestOriginRenamedBeforeTheCut(t *testing.T) {
	for what, do := range map[string]func(t *testing.T, b *Backend, f *fakeVG, id string) error{
		"snapshot": func(t *testing.T, b *Backend, _ *fakeVG, id string) error {
			return second(b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "cut", VolumeID: id}))
		},
		"clone": func(t *testing.T, b *Backend, _ *fakeVG, id string) error {
			return second(b.CloneVolume(t.Context(), backends.Volume{ID: id}, request("thin", "cut", 8<<20)))
		},
		"clone to another class": func(t *testing.T, b *Backend, _ *fakeVG, id string) error {
			return second(b.CloneVolume(t.Context(), backends.Volume{ID: id}, request("linear", "cut", 8<<20)))
		},
		"group": func(t *testing.T, b *Backend, _ *fakeVG, id string) error {
			return second(b.CreateGroupSnapshot(t.Context(), backends.CreateGroupSnapshotRequest{Name: "cut", VolumeIDs: []string{id}}))
		},
	} {
		for _, then := range []string{"renamed", "gone", "deleting"} {
			f := newFake()
			b := onFake(t, f, testOptions())
			v := createVolume(t, b, "pvc-1", "thin", 8<<20)
			l := f.lvs[1]
			l.bytes = []byte("its data")
			foreign := &fakeLV{}
			looks := 0
			f.before = func(args []string) error {
				// Of the looks, the first is the one without the turn.
				if args[0] != "lvs" {
					return nil
				}
				if looks++; looks != 2 {
					return nil
				}
				*foreign = *l
				foreign.uuid, foreign.tags, foreign.bytes = f.newUUID(), nil, []byte("others' data")
				switch then {
				case "renamed":
					l.name = "renamed"
				case "gone":
					f.lvs = slices.DeleteFunc(f.lvs, func(o *fakeLV) bool { return o == l })
				case "deleting":
					l.name = "renamed"
					for i, tag := range l.tags {
						l.tags[i] = strings.Replace(tag, stateReady, stateDeleting, 1)
					}
				}
				f.lvs = append(f.lvs, foreign)
				return nil
			}
			err := do(t, b, f, v.ID)
			if looks < 2 {
				t.Errorf("%s: %d looks", what, looks)
			}
			if ok := err == nil; ok != (then == "renamed") {
				t.Errorf("%s, %s: %v", what, then, err)
			}
			for _, o := range f.lvs {
				if o != foreign && string(o.bytes) == string(foreign.bytes) {
					t.Errorf("%s, %s: %s has what is another's", what, then, o.name)
				}
			}
		}
	}
}

// No name that a CO may give is that of what the driver has made for itself.
func TestNamesOfItsOwn(t *testing.T) {
	f := newFake()
	b := onFake(t, f, podOptions())
	if _, err := pod(t, b, "csi-1", "size", "8Mi", paramClass, "thin"); err != nil {
		t.Fatal(err)
	}
	_, err := b.FindVolume(t.Context(), backends.CreateVolumeRequest{Name: podName("csi-1"), Parameters: map[string]string{paramClass: "thin"}})
	if !errors.Is(err, backends.ErrIncompatible) {
		t.Errorf("a pod's volume: %v", err)
	}
	for what, name := range map[string]string{"pod": podName("x"), "member": memberName("g", "thin/v-x")} {
		if !strings.Contains(name, "\x00") {
			t.Errorf("%s: CSI allows the name %q", what, name)
		}
	}
}
