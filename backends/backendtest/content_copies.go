package backendtest

import (
	"github.com/csikit/csikit/backends"
)

// went tells whether a source was deleted; a backend may also refuse, because
// what was made of it depends on it.
func (t *T) went(call string, err error) bool {
	t.Helper()
	if err != nil {
		t.wantKind(call, err, backends.ErrInUse)
	}
	return err == nil
}

// twice is a size for a volume that is bigger than v.
func (t *T) twice(v *backends.Volume) int64 {
	return roundUp(2*max(v.Capacity, 1), t.b.Traits.SizeStep)
}

// bigger makes a volume of something, twice as big as v.
func (t *T) bigger(v *backends.Volume, from origin) (*backends.Volume, int64) {
	t.Helper()
	req := t.request(t.name())
	req.Size = t.twice(v)
	req.Range.Required = req.Size
	made, err := t.provision(t.Context(), req, from)
	t.must("a bigger volume made of another", err)
	return made, req.Size
}

// grownCopy fails the check unless a bigger copy has what v had, and nothing of
// anybody's behind it.
func (t *T) grownCopy(v *backends.Volume, from origin) {
	t.Helper()
	made, size := t.bigger(v, from)
	t.reads(made.ID, "first", 0, 3*chunk)
	if v.Capacity >= chunk {
		t.reads(made.ID, "first", (v.Capacity-chunk)/chunk*chunk)
		t.reads(made.ID, "", roundUp(v.Capacity, chunk))
	}
	if made.Capacity == 0 {
		return // volumes have no size: there is no end to look at
	}
	t.reads(made.ID, "", size-chunk)
	t.write(made.ID, "second", size-chunk)
	t.reads(made.ID, "second", size-chunk)
}

// filled makes a volume with data at its beginning and at its end.
func (t *T) filled() *backends.Volume {
	t.Helper()
	v := t.create(t.name())
	t.write(v.ID, "first", 0, 3*chunk)
	if v.Capacity >= chunk {
		t.write(v.ID, "first", (v.Capacity-chunk)/chunk*chunk)
	}
	return v
}

// copyChecks are of what volumes have that are made of something, later.
var copyChecks = []check{
	{
		"content/clone bigger", "csidriver has looked the source up, and req.Size is not less than its Capacity.", "Controller Cloner",
		func(t *T) {
			v := t.filled()
			t.grownCopy(v, origin{volume: v})
		},
	},
	{
		"content/restored bigger", "csidriver has looked it up: snap is ready, and req.Size is not less than its Size.", "Controller Snapshotter",
		func(t *T) {
			v := t.filled()
			t.grownCopy(v, origin{snapshot: t.readySnapshot(t.name(), v.ID)})
		},
	},
	{
		"content/snapshot of an expanded volume", "Snapshot is a point in time of a volume.", "Controller Snapshotter Expander",
		func(t *T) {
			v := t.filled()
			before := t.readySnapshot(t.name(), v.ID)
			size := t.twice(v)
			_, err := t.grow(t.Context(), v.ID, size)
			t.must("ExpandVolume", err)
			t.write(v.ID, "tail", size-chunk)
			after := t.readySnapshot(t.name(), v.ID)
			restored, _ := t.bigger(v, origin{snapshot: after})
			t.reads(restored.ID, "first", 0, 3*chunk)
			t.reads(restored.ID, "tail", size-chunk)
			restored, _ = t.bigger(v, origin{snapshot: before})
			t.reads(restored.ID, "first", 0, 3*chunk)
			t.reads(restored.ID, "", size-chunk)
		},
	},
	{
		"content/clone without its source", "A volume that is in use, or that its snapshots depend on, is ErrInUse and left untouched.", "Controller Cloner",
		func(t *T) {
			v := t.filled()
			clone := t.copied(origin{volume: v})
			t.went("DeleteVolume of a source", t.remove(t.Context(), v.ID))
			t.create(t.name()) // may get what the source had
			t.reads(clone.ID, "first", 0, 3*chunk)
		},
	},
	{
		"content/snapshot without its volume", "A volume that is in use, or that its snapshots depend on, is ErrInUse and left untouched.", "Controller Snapshotter",
		func(t *T) {
			v := t.filled()
			s := t.readySnapshot(t.name(), v.ID)
			if !t.went("DeleteVolume of a volume with a snapshot", t.remove(t.Context(), v.ID)) {
				t.reads(v.ID, "first", 0, 3*chunk)
			}
			other := t.create(t.name())
			t.write(other.ID, "second", 0, 3*chunk)
			t.reads(t.copied(origin{snapshot: s}).ID, "first", 0, 3*chunk)
		},
	},
	{
		"content/restored without its snapshot", "The rules of Volume, FindVolume, CreateVolume and DeleteVolume hold alike.", "Controller Snapshotter",
		func(t *T) {
			v := t.filled()
			s := t.readySnapshot(t.name(), v.ID)
			restored := t.copied(origin{snapshot: s})
			t.went("DeleteSnapshot of a source", t.removeSnapshot(t.Context(), s.ID))
			t.reads(restored.ID, "first", 0, 3*chunk)
			t.reads(v.ID, "first", 0, 3*chunk)
		},
	},
	{
		"content/snapshot reopened", again, "Controller Snapshotter",
		func(t *T) {
			t.want(t.cfg.Reopen != nil, "Reopen")
			v := t.filled()
			s := t.readySnapshot(t.name(), v.ID)
			early := t.copied(origin{snapshot: s})
			t.write(v.ID, "second", 0)
			t.reopen()
			t.reads(t.copied(origin{snapshot: t.lookupSnapshot(s.ID)}).ID, "first", 0, 3*chunk)
			t.reads(early.ID, "first", 0, 3*chunk)
			t.reads(v.ID, "second", 0)
		},
	},
	{
		"modify/at creation of a copy", "take precedence over Parameters", "Controller Modifier",
		func(t *T) {
			patch, v := t.patches(1)[0], t.create(t.name())
			for name, from := range t.origins(v) {
				req := t.request(t.name())
				req.Mutable = patch
				made, err := t.provision(t.Context(), twin(req), from)
				t.must(name+" with mutable parameters", err)
				t.applied(made.ID, patch)
			}
		},
	},
}

// origins are the ways in which the backend makes a volume of v.
func (t *T) origins(v *backends.Volume) map[string]origin {
	t.Helper()
	from := make(map[string]origin)
	if t.c.Cloner != nil {
		from["CloneVolume"] = origin{volume: v}
	}
	if t.c.Snapshotter != nil {
		from["RestoreSnapshot"] = origin{snapshot: t.readySnapshot(t.name(), v.ID)}
	}
	return from
}
