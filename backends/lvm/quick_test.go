package lvm

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// A volume is made by one command; it is removed by one, or two where it is wiped.
func TestCommandsOfALife(t *testing.T) {
	f := newFake()
	b := onFake(t, f, testOptions())
	for class, want := range map[string][]string{"linear": {"lvcreate", "lvchange", "lvremove"}, "thin": {"lvcreate", "lvremove"}} {
		from := len(f.commands)
		v := createVolume(t, b, "pvc-1", class, 8<<20)
		if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range f.commands[from:] {
			if what, _, _ := strings.Cut(c, " "); what != "lvs" {
				got = append(got, what)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", class, got, want)
		}
	}
}

// What another process has made of the same name meanwhile is not taken away when this
// one's command fails.
func TestNameTakenMeanwhile(t *testing.T) {
	f := newFake()
	other := onFake(t, f, optionsFor("linear"))
	b := onFake(t, f, optionsFor("linear"))
	var theirs *fakeLV
	f.before = func(args []string) error {
		if args[0] != "lvcreate" || theirs != nil {
			return nil
		}
		p, err := other.plan(backends.CreateVolumeRequest{Name: "pvc-1", Size: 8 << 20})
		if err != nil {
			t.Error(err)
		}
		p.m.State, p.m.Nonce = stateReady, "theirs"
		theirs = &fakeLV{name: p.lv(), uuid: f.newUUID(), typ: "linear", extents: 2, tags: p.m.tags(other.o.Driver), active: true}
		f.lvs = append(f.lvs, theirs)
		return nil
	}
	if err := create("pvc-1", "linear")(t, b); !errors.Is(err, backends.ErrExists) {
		t.Errorf("%v", err)
	}
	if !slices.Contains(f.lvs, theirs) {
		t.Error("it was removed")
	}
}

// What a command that failed has committed is taken away, and the answer is not final
// when that cannot be.
func TestCreateFailsAfterItsCommit(t *testing.T) {
	for _, stays := range []bool{false, true} {
		f := newFake()
		b := onFake(t, f, optionsFor("linear"))
		f.after = func(args []string) error {
			switch args[0] {
			case "lvcreate":
				return exit(5, "Failed to activate new LV. No free extents")
			case "lvremove":
				if stays {
					return exit(5, "device-mapper failed")
				}
			}
			return nil
		}
		f.before = func(args []string) error {
			if stays && args[0] == "lvremove" {
				return exit(5, "device-mapper failed")
			}
			return nil
		}
		err := create("pvc-1", "linear")(t, b)
		ready, _ := f.mine()
		if final := errors.Is(err, backends.ErrNoSpace); err == nil || final == stays || (ready == 0) == stays {
			t.Errorf("stays=%v: %v, %d LVs", stays, err, ready)
		}
	}
}
