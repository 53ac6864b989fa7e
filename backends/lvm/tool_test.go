package lvm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
)

// script is an lvm that is a shell script, run as the real one is.
func script(t testing.TB, text string) *tool {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "lvm"), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	o := testOptions()
	o.Command = command.New(&command.Options{Path: dir + ":/usr/bin:/bin"})
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	return newTool(&o)
}

func TestToolArguments(t *testing.T) {
	tl := script(t, `for a in "$@"; do echo "$a"; done; echo "$LVM_SUPPRESS_FD_WARNINGS"`)
	out, err := tl.read(t.Context(), testVG, "lvs", "-o", "lv_name", testVG)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(got) != 7 || got[0] != "lvs" || got[1] != "--config" || got[6] != "1" {
		t.Fatalf("%q", got)
	}
	for _, want := range []string{"activation/udev_sync=0", "activation/udev_rules=0", "activation/verify_udev_operations=0",
		"devices/obtain_device_list_from_udev=0", "global/use_lvmpolld=0"} {
		if !strings.Contains(" "+got[2]+" ", " "+want+" ") {
			t.Errorf("%q lacks %s", got[2], want)
		}
	}
}

func TestSettingsWin(t *testing.T) {
	o := testOptions()
	o.Settings = map[string]string{"activation/monitoring": "1", "devices/use_devicesfile": "0"}
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	c := " " + newTool(&o).config + " "
	if !strings.Contains(c, " activation/monitoring=1 ") || strings.Contains(c, "monitoring=0") || !strings.Contains(c, " devices/use_devicesfile=0 ") {
		t.Error(c)
	}
}

// A tool that fails, or is not there, says nothing about what is missing.
func TestToolFails(t *testing.T) {
	if _, err := script(t, "echo '{}'; exit 5").read(t.Context(), testVG, "lvs"); !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrNotFound) {
		t.Error(err)
	}
	o := testOptions()
	o.Command = command.New(&command.Options{Path: t.TempDir()})
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	// command adds no directories to a path that it is given.
	if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: makeID("linear", nameOf(kindVolume, "a"))}); !errors.Is(err, backends.ErrUnavailable) {
		t.Error(err)
	}
}

// Who writes metadata is not ended because its caller has gone.
func TestWriterOutlivesItsCaller(t *testing.T) {
	done := filepath.Join(t.TempDir(), "done")
	started := done + ".started"
	tl := script(t, "echo > "+started+"; while [ ! -e "+done+" ]; do sleep 0.01; done")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for {
			if _, err := os.Stat(started); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		cancel()
		_ = os.WriteFile(done, nil, 0o600)
	}()
	if err := tl.change(ctx, testVG, "lvchange"); err != nil {
		t.Error(err)
	}
	if err := tl.change(ctx, testVG, "lvchange"); !errors.Is(err, context.Canceled) {
		t.Errorf("a command begun after the caller's end: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for what, spoil := range map[string]func(o *Options){
		"no driver":           func(o *Options) { o.Driver = "" },
		"hostile driver":      func(o *Options) { o.Driver = "a,b" },
		"no node":             func(o *Options) { o.Node = "" },
		"no classes":          func(o *Options) { o.Classes = nil },
		"one twice":           func(o *Options) { o.Classes = append(o.Classes, o.Classes[0]) },
		"hostile class":       func(o *Options) { o.Classes[0].Name = "../x" },
		"option as VG":        func(o *Options) { o.Classes[0].VG = "-ff" },
		"path as VG":          func(o *Options) { o.Classes[0].VG = "/dev/sda" },
		"dots as VG":          func(o *Options) { o.Classes[0].VG = ".." },
		"unknown profile":     func(o *Options) { o.Classes[0].Profile = "cache" },
		"stripes of linear":   func(o *Options) { o.Classes[0].Stripes = 2 },
		"pool of linear":      func(o *Options) { o.Classes[0].ThinPool = "p" },
		"thin without pool":   func(o *Options) { o.Classes[1].ThinPool = "" },
		"unknown wipe":        func(o *Options) { o.Classes[0].Wipe = "shred" },
		"less than promised":  func(o *Options) { o.Classes[1].Overcommit = 0.5 },
		"a shell in lvm.conf": func(o *Options) { o.Settings = map[string]string{"x; reboot": "1"} },
	} {
		o := testOptions()
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

// Nothing that an operation is given can be an option of lvm.
func TestHostileNames(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("linear"))
	for _, name := range []string{"-rf", "--help", "a b", "$(id)", "a;b", "../..", "@tag", "snapshot", "pvmove", ".", strings.Repeat("ä", 64)} {
		v := createVolume(t, b, name, "linear", 1<<20)
		if got, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil || got.Name != name {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
	for _, c := range f.commands {
		if _, rest := options(strings.Fields(c)); len(rest) != 1 || !strings.HasPrefix(rest[0], testVG) {
			t.Errorf("arguments of %q: %q", c, rest)
		}
		if strings.Contains(c, "reboot") || strings.Contains(c, "$(") {
			t.Errorf("%q", c)
		}
	}
	// What lvm would refuse never gets there.
	if err := checkTags([]string{"csi.n=a b"}); !errors.Is(err, backends.ErrInvalid) {
		t.Error(err)
	}
	req := backends.CreateVolumeRequest{Name: "x", Size: 1, Fingerprint: "--addtag x"}
	if _, err := b.CreateVolume(t.Context(), req); !errors.Is(err, backends.ErrInvalid) {
		t.Error(err)
	}
}
