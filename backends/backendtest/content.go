package backendtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/csikit/csikit/backends"
)

// chunk is how much is written at a time.
const chunk = 4096

// content skips the check when data cannot be reached.
func (t *T) content() Content {
	t.Helper()
	t.want(t.cfg.Content != nil, "Content")
	return t.cfg.Content(t.b)
}

// write fills a few places of a volume, so that they tell what was written.
func (t *T) write(id, text string, offsets ...int64) {
	t.Helper()
	for _, off := range offsets {
		p := bytes.Repeat([]byte(fmt.Sprintf("%-16.16s", fmt.Sprintf("%s@%d", text, off))), chunk/16)
		if err := t.content().WriteAt(id, p, off); err != nil {
			t.Fatalf("write to %s at %d: %v", id, off, err)
		}
	}
}

// reads fails the check unless the volume has what write wrote.
func (t *T) reads(id, text string, offsets ...int64) {
	t.Helper()
	for _, off := range offsets {
		want := bytes.Repeat([]byte(fmt.Sprintf("%-16.16s", fmt.Sprintf("%s@%d", text, off))), chunk/16)
		if text == "" {
			want = make([]byte, chunk)
		}
		got := t.read(id, off)
		if !bytes.Equal(got, want) {
			t.Errorf("volume %s has %.16q at %d, want %.16q", id, got, off, want)
		}
	}
}

func (t *T) read(id string, off int64) []byte {
	t.Helper()
	p := make([]byte, chunk)
	if err := t.content().ReadAt(id, p, off); err != nil {
		t.Fatalf("read %s at %d: %v", id, off, err)
	}
	return p
}

// copied makes a volume of something.
func (t *T) copied(from origin) *backends.Volume {
	t.Helper()
	v, err := t.provision(t.Context(), t.request(t.name()), from)
	t.must("a volume made of another", err)
	return v
}

var contentChecks = []check{
	{
		"content/snapshot", "Snapshot is a point in time of a volume.", "Controller Snapshotter",
		func(t *T) {
			v := t.create(t.name())
			t.write(v.ID, "first", 0, 3*chunk)
			s := t.readySnapshot(t.name(), v.ID)
			t.write(v.ID, "second", 0, 5*chunk)
			restored := t.copied(origin{snapshot: s})
			t.reads(restored.ID, "first", 0, 3*chunk)
			t.reads(restored.ID, "", 5*chunk)
			t.write(restored.ID, "third", 0)
			t.reads(v.ID, "second", 0, 5*chunk)
			t.reads(t.copied(origin{snapshot: s}).ID, "first", 0, 3*chunk)
		},
	},
	{
		"content/clone", "Cloner serves CLONE_VOLUME.", "Controller Cloner",
		func(t *T) {
			v := t.create(t.name())
			t.write(v.ID, "first", 0, 3*chunk)
			clone := t.copied(origin{volume: v})
			t.write(v.ID, "second", 0)
			t.write(clone.ID, "third", 3*chunk)
			t.reads(clone.ID, "first", 0)
			t.reads(clone.ID, "third", 3*chunk)
			t.reads(v.ID, "second", 0)
			t.reads(v.ID, "first", 3*chunk)
		},
	},
	{
		"content/expand", "never less than before.", "Controller Expander",
		func(t *T) {
			v := t.create(t.name())
			t.write(v.ID, "first", 0, 3*chunk)
			size := roundUp(2*max(v.Capacity, 1), t.b.Traits.SizeStep)
			_, err := t.grow(t.Context(), v.ID, size)
			t.must("ExpandVolume", err)
			t.reads(v.ID, "first", 0, 3*chunk)
			t.reads(v.ID, "", size-chunk)
			t.write(v.ID, "second", size-chunk)
		},
	},
	{
		"content/a new volume is empty", "CreateVolume makes the volume called req.Name", "Controller",
		func(t *T) {
			name := t.name()
			for range 3 {
				v := t.create(name)
				t.reads(v.ID, "", 0, 3*chunk)
				t.write(v.ID, "old", 0, 3*chunk)
				t.must("DeleteVolume", t.remove(t.Context(), v.ID))
			}
		},
	},
	{
		"content/reopened", again, "Controller",
		func(t *T) {
			t.want(t.cfg.Reopen != nil, "Reopen")
			v := t.create(t.name())
			t.write(v.ID, "first", 0, 3*chunk)
			t.reopen()
			t.create(v.Name) // again, as a CO may
			t.reads(v.ID, "first", 0, 3*chunk)
		},
	},
	{
		"content/group", "All members are cut at one moment or none is left behind.", "Controller GroupSnapshotter",
		func(t *T) {
			vols := []*backends.Volume{t.create(t.name()), t.create(t.name())}
			for _, v := range vols {
				t.write(v.ID, "of "+v.ID[len(v.ID)-4:], 0)
			}
			g, err := t.takeGroup(t.Context(), t.groupRequest(t.name(), vols))
			t.must("CreateGroupSnapshot", err)
			for _, v := range vols {
				t.write(v.ID, "later", 0)
			}
			for _, member := range g.Snapshots {
				t.await("the group is ready", func() bool { return t.lookupSnapshot(member.ID).Ready })
				t.reads(t.copied(origin{snapshot: t.lookupSnapshot(member.ID)}).ID, "of "+member.VolumeID[len(member.VolumeID)-4:], 0)
			}
		},
	},
}

// scribble writes at random places.
func (t *T) scribble(random *rand.Rand, id string, size int64, times int) {
	t.Helper()
	for range times {
		p := make([]byte, 1+random.IntN(2*chunk))
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		if err := t.content().WriteAt(id, p, random.Int64N(size-int64(len(p)))); err != nil {
			t.Fatal(err)
		}
	}
}
