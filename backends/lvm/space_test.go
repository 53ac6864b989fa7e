package lvm

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

func TestThinPoolLimits(t *testing.T) {
	for what, c := range map[string]struct {
		spoil func(o *Options, p *fakeLV)
		kind  error
	}{
		"data":        {func(_ *Options, p *fakeLV) { p.data = "95.10" }, backends.ErrNoSpace},
		"not active":  {func(_ *Options, p *fakeLV) { p.active, p.data, p.meta, p.filled = false, "", "", "95.10" }, backends.ErrNoSpace},
		"metadata":    {func(_ *Options, p *fakeLV) { p.meta = "80.00" }, backends.ErrNoSpace},
		"failed":      {func(_ *Options, p *fakeLV) { p.health = "out_of_data" }, backends.ErrNoSpace},
		"promised":    {func(o *Options, _ *fakeLV) { o.Classes[0].Overcommit = 1 }, backends.ErrNoSpace},
		"not zeroing": {func(_ *Options, p *fakeLV) { p.zero = "" }, backends.ErrPrecondition},
		"gone":        {func(_ *Options, p *fakeLV) { p.name = "other" }, backends.ErrUnavailable},
		"no pool":     {func(_ *Options, p *fakeLV) { p.typ = "linear" }, backends.ErrPrecondition},
	} {
		f := newFake()
		o := optionsFor("thin")
		c.spoil(&o, f.lvs[0])
		b := onFake(t, f, o)
		_, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "a", Size: 100 << 20})
		if !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", what, err)
		}
		if ready, other := f.mine(); ready+other != 0 {
			t.Errorf("%s: something is left", what)
		}
	}
}

func TestHealth(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("thin"))
	v := createVolume(t, b, "a", "thin", 8<<20)
	reasons := func() string {
		h, err := b.VolumeHealth(t.Context(), backends.VolumeRequest{ID: v.ID})
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for _, x := range h {
			s = append(s, x.Reason)
		}
		return strings.Join(s, " ")
	}
	if got := reasons(); got != "" {
		t.Error(got)
	}
	p := f.lvs[0]
	p.data, p.meta = "81.00", "71.00"
	if got := reasons(); got != "ThinPoolNearlyFull ThinPoolMetadataNearlyFull" {
		t.Error(got)
	}
	p.health = "out_of_data"
	if got := reasons(); got != "ThinPoolFull ThinPoolMetadataNearlyFull" {
		t.Error(got)
	}
	f.lvs[1].health, f.missing = "partial", 1
	if got := reasons(); !strings.HasPrefix(got, "DisksMissing") {
		t.Error(got)
	}
	f.missing = 0
	list, _, err := b.ListVolumeHealth(t.Context(), backends.ListVolumeHealthRequest{Page: backends.Page{Limit: 10}})
	if err != nil || len(list) != 1 || list[0].ID != v.ID {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestRoom(t *testing.T) {
	g := &group{extent: 4 << 20, free: 40, disks: []physical{{"a", 10}, {"b", 20}, {"c", 10}}}
	for p, want := range map[Profile]space{
		Linear: {all: 40, most: 40}, Striped: {all: 40, most: 40}, RAID1: {all: 20, most: 9}, RAID5: {all: 20, most: 18}, RAID10: {all: 0, most: 0},
	} {
		o := Options{Driver: "d", Node: "n", Classes: []Class{{Name: "c", VG: "v", Profile: p}}}
		if err := o.check(); err != nil {
			t.Fatal(err)
		}
		if got, err := room(g, &o.Classes[0]); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", p, got, err, want)
		}
	}
	o := Options{Driver: "d", Node: "n", Classes: []Class{{Name: "c", VG: "v", Spare: 5 << 22}}}
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	if got, _ := room(g, &o.Classes[0]); got != (space{all: 35, most: 35}) {
		t.Errorf("with spare: %+v", got)
	}
}

// A report is never older than the question, and shared by those who ask meanwhile.
func TestReportsAreShared(t *testing.T) {
	var r reports
	begin, proceed := make(chan int), make(chan struct{})
	n := 0
	fetch := func(context.Context) (*group, error) {
		n++
		begin <- n
		<-proceed
		return &group{seqno: uint64(n)}, nil
	}
	got := make(chan uint64, 3)
	ask := func() {
		g, err := r.get(context.Background(), "vg", fetch)
		if err != nil {
			t.Error(err)
		}
		got <- g.seqno
	}
	go ask()
	<-begin
	go ask()
	go ask()
	for waiting := false; !waiting; {
		r.mu.Lock()
		waiting = r.vgs["vg"].next != nil
		r.mu.Unlock()
	}
	proceed <- struct{}{}
	if s := <-got; s != 1 {
		t.Errorf("the first got report %d", s)
	}
	<-begin
	close(proceed)
	go func() {
		for range begin {
		}
	}()
	for range 2 {
		if s := <-got; s < 2 {
			t.Errorf("a report begun before it was asked for: %d", s)
		}
	}
}

// What is known of the format of a copy is from after the cut: else one that is full
// of files would be formatted.
func TestFormatOfACopy(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("thin"))
	v := createVolume(t, b, "a", "thin", 8<<20)
	record := backends.RecordFormatRequest{ID: v.ID, Format: backends.FormatStarted, FSType: "ext4"}
	if err := b.RecordFormat(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	f.before = func(args []string) error {
		if args[0] == "lvcreate" { // mkfs ends, and somebody writes, before the cut
			for i, tag := range f.lvs[1].tags {
				if tag == tagFormat+"ext4:started" {
					f.lvs[1].tags[i] = tagFormat + "ext4:done"
				}
			}
		}
		return nil
	}
	s, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.RestoreSnapshot(t.Context(), *s, backends.CreateVolumeRequest{Name: "r", Size: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	src := opened(t, b, r.ID, false)
	if src.Device.Format != backends.FormatDone || src.Device.FSType != "ext4" {
		t.Errorf("%+v", src.Device)
	}
}
