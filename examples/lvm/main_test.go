package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends/lvm"
)

func TestFlags(t *testing.T) {
	for what, args := range map[string][]string{
		"-mode":      {"-vg", "vg0", "-mode", "neither"},
		"one of":     {},
		"-classes":   {"-vg", "vg0", "-classes", "x"},
		"no such":    {"-classes", filepath.Join(t.TempDir(), "none")},
		"unexpected": {"-vg", "vg0", "start"},
		"no name of": {"-vg", "-ff"},
		"-register":  {"-vg", "vg0", "-register"},
	} {
		if err := run(t.Context(), args); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%q: %v", args, err)
		}
	}
	s, err := parse([]string{"-vg", "vg0", "-register", "-kubelet-dir", "/k", "-health", ":1", "-kubelet-endpoint", "/k/csi.sock"})
	if err != nil || s.registry != "/k/plugins_registry" || s.health != ":1" || s.registered != "/k/csi.sock" {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = parse([]string{"-vg", "vg0", "-set", "devices/use_devicesfile=0", "-cgroup", "/c", "-ephemeral-max", "1", "-max-volumes", "2"})
	if err != nil || s.Classes[0].VG != "vg0" || s.Settings["devices/use_devicesfile"] != "0" || s.Cgroup != "/c" || s.EphemeralMax != 1 || s.MaxVolumes != 2 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestReadme: the classes that the README shows are classes, and it names each field.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "    [\n")
	list, _, ok := strings.Cut(rest, "    ]\n")
	file := filepath.Join(t.TempDir(), "classes.json")
	if err := os.WriteFile(file, []byte("["+list+"]"), 0o600); err != nil || !ok {
		t.Fatal(err)
	}
	s, err := parse([]string{"-classes", file})
	if err != nil || len(s.Classes) != 4 {
		t.Fatalf("%+v, %v", s, err)
	}
	if b, err := lvm.New(s.Options); err != nil {
		t.Error(err)
	} else {
		_ = b.Close()
	}
	fields := map[string]any{}
	out, err := json.Marshal(lvm.Class{})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &fields); err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(string(readme[strings.Index(string(readme), "| field |"):]), "\n\n")
	for f := range fields {
		if !strings.Contains(table, f) {
			t.Errorf("README.md does not say what %s is", f)
		}
	}
}
