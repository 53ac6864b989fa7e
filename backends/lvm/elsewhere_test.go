package lvm

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
)

// manyVGs is an lvm, and a kernel, with several volume groups.
type manyVGs struct {
	*fakeVG // the one whose devices are looked at
	vgs     map[string]*fakeVG
	scan    error // of all of them
}

func (m *manyVGs) Run(ctx context.Context, c command.Cmd) (command.Result, error) {
	if c.Scope != "" {
		return m.vgs[c.Scope].Run(ctx, c)
	}
	if m.scan != nil {
		return command.Result{Code: 5}, m.scan
	}
	var rows [][]byte
	for _, f := range m.vgs {
		res, err := f.Run(ctx, c)
		if err != nil {
			return res, err
		}
		_, in, _ := bytes.Cut(res.Stdout, []byte(`"lv":[`))
		in, _, _ = bytes.Cut(in, []byte("]}]}"))
		rows = append(rows, in)
	}
	return command.Result{Stdout: []byte(`{"report":[{"lv":[` + string(bytes.Join(rows, []byte(","))) + `]}]}`)}, nil
}

// onVGs is a Backend whose classes have volume groups of these names, each with LVs.
func onVGs(t *testing.T, m *manyVGs, classes map[string]string) *Backend {
	t.Helper()
	if m.vgs == nil {
		m.vgs = map[string]*fakeVG{}
		for _, vg := range []string{"vga", "vgb"} {
			f := newFake()
			f.name, f.made = vg, len(m.vgs)*1000
			f.uuid = strings.Replace(f.uuid, "zz4U8q", "zz4U8"+vg[2:], 1)
			f.lvs[0].uuid = f.newUUID()
			m.vgs[vg] = f
		}
		m.fakeVG = m.vgs["vga"]
	}
	o := Options{Driver: "lvm.csikit.dev", Node: "node-1"}
	for _, name := range []string{"one", "two", "three"} {
		if vg := classes[name]; vg != "" {
			o.Classes = append(o.Classes, Class{Name: name, VG: vg})
		}
	}
	b := onFake(t, m.fakeVG, o)
	b.tool.run = m
	return b
}

// What has the ID or the name of something in another volume group than its class has
// by now is neither "not found" nor made once more.
func TestClassMoved(t *testing.T) {
	for what, classes := range map[string]map[string]string{
		"known":   {"one": "vgb", "two": "vga"},
		"unknown": {"one": "vgb"},
		"removed": {"two": "vga"},
	} {
		t.Run(what, func(t *testing.T) {
			m := &manyVGs{}
			b := onVGs(t, m, map[string]string{"one": "vga"})
			v := createVolume(t, b, "pvc-1", "one", 8<<20)
			s, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
			if err != nil {
				t.Fatal(err)
			}
			g, err := b.CreateGroupSnapshot(t.Context(), backends.CreateGroupSnapshotRequest{Name: "g", VolumeIDs: []string{v.ID}})
			if err != nil {
				t.Fatal(err)
			}
			lvs := slices.Clone(m.vgs["vga"].lvs)
			b = onVGs(t, m, classes)
			calls := map[string]error{
				"get":             second(b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID})),
				"delete":          b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}),
				"open":            second(b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID})),
				"close":           b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: v.ID}),
				"health":          second(b.VolumeHealth(t.Context(), backends.VolumeRequest{ID: v.ID})),
				"expand":          second(b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 64 << 20})),
				"snapshot":        second(b.Snapshot(t.Context(), backends.SnapshotRequest{ID: s.ID})),
				"delete snapshot": b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}),
				"group":           second(b.GroupSnapshot(t.Context(), backends.GroupSnapshotRequest{ID: g.ID})),
				"delete group":    b.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: g.ID}),
			}
			if what != "unknown" { // there, only a command for each new volume would tell
				calls["find"] = second(b.FindVolume(t.Context(), backends.CreateVolumeRequest{Name: "pvc-1"}))
				calls["find snapshot"] = second(b.FindSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s"}))
			}
			for call, err := range calls {
				if !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrNotFound) {
					t.Errorf("%s: %v", call, err)
				}
			}
			if err := b.RecoverController(t.Context()); err != nil {
				t.Error(err)
			}
			if !slices.Equal(m.vgs["vga"].lvs, lvs) {
				t.Error("something was changed")
			}
			if list, _, err := b.ListVolumes(t.Context(), backends.ListVolumesRequest{}); what != "unknown" && (err != nil || len(list) != 1) {
				t.Errorf("list: %v, %v", list, err)
			}
			if list, _, err := b.ListVolumeHealth(t.Context(), backends.ListVolumeHealthRequest{}); what != "unknown" && (err != nil || len(list) != 1) {
				t.Errorf("health: %v, %v", list, err)
			}
		})
	}
}

// "Not found" needs all volume groups of the node.
func TestNotFoundNeedsAllVGs(t *testing.T) {
	m := &manyVGs{}
	b := onVGs(t, m, map[string]string{"one": "vga"})
	id := makeID("one", nameOf(kindVolume, "pvc-1"))
	get := func() error { return second(b.Volume(t.Context(), backends.VolumeRequest{ID: id})) }
	if err := get(); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("%v", err)
	}
	m.scan = exit(5, "a disk of somebody hangs")
	if err := get(); errors.Is(err, backends.ErrNotFound) || !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// A name is looked for in each class's own volume group, in whatever order they are.
func TestFindInClassesOfManyVGs(t *testing.T) {
	m := &manyVGs{}
	b := onVGs(t, m, map[string]string{"one": "vga", "two": "vgb", "three": "vga"})
	v := createVolume(t, b, "pvc-1", "three", 8<<20)
	for _, missing := range []int64{0, 1} {
		m.vgs["vgb"].missing = missing // then it cannot be looked at
		got, err := b.FindVolume(t.Context(), backends.CreateVolumeRequest{Name: "pvc-1"})
		if err != nil || got.ID != v.ID {
			t.Errorf("%d missing: %+v, %v", missing, got, err)
		}
	}
}

// A list without one whose tags cannot be read, or with one of two that say to be the
// same, would have a CO take it for gone.
func TestListOfDoubts(t *testing.T) {
	for _, what := range []string{"torn", "newer", "twin"} {
		f := newFake()
		b := onFake(t, f, optionsFor("thin"))
		v := createVolume(t, b, "pvc-1", "thin", 8<<20)
		if _, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID}); err != nil {
			t.Fatal(err)
		}
		for _, l := range f.lvs[1:] {
			switch what {
			case "torn":
				l.tags = append(l.tags, tagTime+"7")
			case "newer":
				l.tags = append(slices.DeleteFunc(l.tags, func(t string) bool { return t == tagVersion+"1" }), tagVersion+"2")
			case "twin":
				twin := *l
				twin.name, twin.uuid = "twin-"+l.name, f.newUUID()
				f.lvs = append(f.lvs, &twin)
			}
		}
		_, _, err1 := b.ListVolumes(t.Context(), backends.ListVolumesRequest{})
		_, _, err2 := b.ListSnapshots(t.Context(), backends.ListSnapshotsRequest{})
		for _, err := range []error{err1, err2} {
			if err == nil || errors.Is(err, backends.ErrNotFound) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// All disks of the node are looked at by who has no turn at a VG: one that is none of
// ours and hangs holds nobody else up.
func TestAbsentWithoutTheTurn(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("linear"))
	looks := 0
	f.before = func(args []string) error {
		if slices.Contains(args, "--readonly") {
			if looks++; len(b.turns.Running()) > 0 {
				t.Error("with the turn of a volume group")
			}
		}
		return nil
	}
	id := makeID("linear", nameOf(kindVolume, "gone"))
	for what, err := range map[string]error{
		"delete": b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: id}),
		"format": record(b, id, backends.FormatStarted)(),
		"look":   second(b.Volume(t.Context(), backends.VolumeRequest{ID: id})),
	} {
		if !errors.Is(err, backends.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if looks != 3 {
		t.Errorf("%d looks", looks)
	}
}
