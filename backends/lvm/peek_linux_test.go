package lvm

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

// TestPeek: what is read from the disks is what lvm reports, and what a process knows
// is never older than the question.
func TestPeek(t *testing.T) {
	if !testenv.InVM(t, "120M", "120M", "120M", "120M", "120M") {
		return
	}
	makeVG(t, "/dev/ubdb", "/dev/ubdc", "/dev/ubdd", "/dev/ubde", "/dev/ubdf")
	play(t, []vmRow{
		{"as lvs", peekedAsReported},
		{"doubts", peekDoubts},
		{"commands", commands},
		{"half made", halfClean},
	})
}

// sameGroup compares the two, as far as peek promises.
func sameGroup(t *testing.T, when string, got, want *group) {
	t.Helper()
	if got.name != want.name || got.uuid != want.uuid || got.seqno != want.seqno || got.extent != want.extent || got.extents != want.extents || got.free != want.free {
		t.Errorf("%s: VG %+v, want %+v", when, *got, *want)
	}
	if len(got.lvs) != len(want.lvs) {
		t.Fatalf("%s: %d LVs, want %d", when, len(got.lvs), len(want.lvs))
	}
	for _, w := range want.lvs {
		i := slices.IndexFunc(got.lvs, func(v *volume) bool { return v.uuid == w.uuid })
		if i < 0 {
			t.Errorf("%s: no %s", when, w.name)
			continue
		}
		v := got.lvs[i]
		slices.Sort(w.tags)
		if v.name != w.name || v.size != w.size || !slices.Equal(v.tags, w.tags) || v.pool != w.pool || v.origin != w.origin || v.thinID != w.thinID || v.thick() != w.thick() || !strings.HasPrefix(w.layout, v.layout) {
			t.Errorf("%s: %+v\nwant %+v", when, *v, *w)
		}
		if v.active != w.active || v.open != w.open || fmt.Sprint(v.own) != fmt.Sprint(w.own) {
			t.Errorf("%s: %s: active %v open %v %+v\nwant %v %v %+v", when, v.name, v.active, v.open, v.own, w.active, w.open, w.own)
		}
		if w.layout == "thin,pool" && (v.zero != w.zero || v.whenFull != w.whenFull || v.health != w.health || !nearly(v.data, w.data) || !nearly(v.meta, w.meta)) {
			t.Errorf("%s: pool %+v\nwant %+v", when, *v, *w)
		}
	}
}

// sameAsLVM compares what is read with what lvm says.
func sameAsLVM(t *testing.T, b *Backend, when string) {
	t.Helper()
	got, err := b.direct(t.Context(), testVG)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	want, err := b.fetch(t.Context(), testVG)
	if err != nil {
		t.Fatal(err)
	}
	sameGroup(t, when, got, want)
	disks, err := b.fetchDisks(t.Context(), testVG)
	if err != nil {
		t.Fatal(err)
	}
	free := func(g *group) (list []int64) {
		for _, d := range g.disks {
			list = append(list, d.free)
		}
		slices.Sort(list)
		return list
	}
	if !slices.Equal(free(got), free(disks)) {
		t.Errorf("%s: free %v, want %v", when, free(got), free(disks))
	}
}

func peekedAsReported(t *testing.T) {
	o := allProfiles()
	b := open(t, o)
	compare := func(when string) {
		t.Helper()
		sameAsLVM(t, b, when)
	}
	compare("a pool")
	var ids []string
	for _, c := range o.Classes {
		v := createVolume(t, b, "pvc-"+c.Name, c.Name, 8<<20)
		ids = append(ids, v.ID)
		compare(c.Name)
	}
	src := opened(t, b, ids[1], true)
	write(t, src.Device.Path, []byte("x"), 1<<20)
	f, err := os.Open(src.Device.Path)
	if err != nil {
		t.Fatal(err)
	}
	compare("open")
	f.Close()
	if _, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: ids[1]}); err != nil {
		t.Fatal(err)
	}
	compare("a thin snapshot")
	// Another process changes the same VG: what is known is not used again.
	lvm(t, "lvcreate", "-qq", "-y", "-l", "1", "-n", "foreign", testVG)
	compare("a foreign LV")
	lvm(t, "lvchange", "-qq", "--addtag", "x", testVG+"/foreign")
	compare("a tag")
	lvm(t, "vgchange", "-qq", "-an", testVG)
	compare("inactive")
}

// peekDoubts: what is not as it was is asked of lvm.
func peekDoubts(t *testing.T) {
	b := open(t, testOptions())
	if _, err := b.direct(t.Context(), testVG); err != nil {
		t.Fatal(err)
	}
	k := b.known(testVG)
	right := k.paths
	doubt := func(why string, paths map[string]string) {
		t.Helper()
		k.paths, k.mark = paths, ""
		if _, err := b.direct(t.Context(), testVG); err == nil {
			t.Errorf("%s: no doubt", why)
		}
		if k.paths != nil {
			t.Errorf("%s: it is believed again", why)
		}
		if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: makeID("linear", nameOf(kindVolume, "none"))}); err == nil || !strings.Contains(err.Error(), "not found") {
			t.Errorf("%s: lvm was not asked: %v", why, err)
		}
		if _, err := b.direct(t.Context(), testVG); err != nil {
			t.Errorf("%s: and afterwards: %v", why, err)
		}
	}
	with := func(change func(map[string]string)) map[string]string {
		m := maps.Clone(right)
		change(m)
		return m
	}
	var some []string
	for id := range right {
		some = append(some, id)
	}
	doubt("a disk that is gone", with(func(m map[string]string) { m[some[0]] = "/dev/nosuch" }))
	doubt("another disk in its place", with(func(m map[string]string) { m[some[0]], m[some[1]] = m[some[1]], m[some[0]] }))
	doubt("a disk without a label", with(func(m map[string]string) { m[some[0]] = "/dev/zero" }))
	doubt("a disk of which nobody knew", with(func(m map[string]string) { delete(m, some[0]) }))
	lvm(t, "vgchange", "-qq", "-an", testVG)
	lvm(t, "vgexport", "-qq", testVG)
	if _, err := b.peek(t.Context(), b.order[0]); err == nil {
		t.Error("an exported VG")
	}
	lvm(t, "vgimport", "-qq", testVG)
	if _, err := b.peek(t.Context(), b.order[0]); err != nil {
		t.Errorf("imported again: %v", err)
	}
}

// commands: at most 3 lvm commands from create to published, and 2 from unpublish to
// deleted.
func commands(t *testing.T) {
	b := open(t, testOptions())
	spy := &spied{run: b.tool.run}
	b.tool.run = spy
	dir := t.TempDir()
	e, err := mounter.New(b, &mounter.Options{StateDir: dir + "/state", AllowVolatileState: true, DefaultFS: "ext4"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	if err := b.RecoverController(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Capacity(t.Context(), backends.CapacityRequest{}); err != nil { // for once lvm is asked where the disks are
		t.Fatal(err)
	}
	for _, class := range []string{"linear", "thin"} {
		for _, name := range []string{"first", "second"} {
			spy.list = nil
			req := backends.CreateVolumeRequest{Name: name, Size: 32 << 20, Parameters: map[string]string{paramClass: class}}
			if _, err := b.FindVolume(t.Context(), req); err == nil {
				t.Fatal("it is there already")
			}
			v, err := b.CreateVolume(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			mode := backends.Capability{Mode: backends.SingleNodeWriter, FSType: "ext4"}
			staging, target := dir+"/staging", dir+"/target"
			if err := e.Stage(t.Context(), mounter.StageRequest{ID: v.ID, Path: staging, Capability: mode}); err != nil {
				t.Fatal(err)
			}
			if err := e.Publish(t.Context(), mounter.PublishRequest{ID: v.ID, StagingPath: staging, Path: target, Capability: mode}); err != nil {
				t.Fatal(err)
			}
			if n := len(spy.list); n > 3 {
				t.Errorf("%s: %d commands from create to published: %q", class, n, spy.list)
			}
			spy.list = nil
			if err := e.Unpublish(t.Context(), mounter.UnpublishRequest{ID: v.ID, Path: target}); err != nil {
				t.Fatal(err)
			}
			if err := e.Unstage(t.Context(), mounter.UnstageRequest{ID: v.ID, Path: staging}); err != nil {
				t.Fatal(err)
			}
			deleted(t, b, v.ID)
			if n := len(spy.list); n > 2 {
				t.Errorf("%s: %d commands from unpublish to deleted: %q", class, n, spy.list)
			}
		}
	}
}

// spied keeps what is run.
type spied struct {
	run  runner
	list []string
}

func (s *spied) Run(ctx context.Context, c command.Cmd) (command.Result, error) {
	s.list = append(s.list, strings.Join(append([]string{c.Args[0]}, c.Args[3:]...), " "))
	return s.run.Run(ctx, c)
}

// halfClean: a volume over which lvcreate was killed when it had committed it, and not
// yet zeroed what lay there before.
func halfClean(t *testing.T) {
	b := open(t, testOptions())
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	path := activated(t, b, v.ID)
	old := func() {
		write(t, path, []byte(strings.Repeat("an old file system", 1000)), 0)
		write(t, path, []byte("a table at its end"), 8<<20-512)
	}
	zero := func() bool {
		for _, off := range []int64{0, 4096, 8<<20 - 512} {
			if got := read(t, path, 18, off); strings.Trim(string(got), "\x00") != "" {
				return false
			}
		}
		return true
	}
	find := func(b *Backend) {
		t.Helper()
		got, err := b.FindVolume(t.Context(), backends.CreateVolumeRequest{Name: "pvc-1", Parameters: map[string]string{paramClass: "linear"}})
		if err != nil || got.ID != v.ID {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	old()
	if find(b); zero() {
		t.Error("wiped by the process that has seen its creation to the end")
	}
	next := open(t, testOptions())
	if find(next); !zero() {
		t.Error("another process takes it as it is")
	}
	// Once it is open it is somebody's.
	src := opened(t, next, v.ID, true)
	old()
	if find(open(t, testOptions())); zero() {
		t.Error("data of its user is wiped")
	}
	closed(t, next, v.ID, src)
}
