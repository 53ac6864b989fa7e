package lvm

import (
	"slices"
	"strconv"
)

// The thick snapshots of a fakeVG.

func (f *fakeVG) createThick(l, o *fakeLV, opts map[string][]string) error {
	l.extents, _ = strconv.ParseInt(opts["--extents"][0], 10, 64)
	if l.extents = min(l.extents, o.extents+1); l.extents > f.free() {
		return exit(5, "Volume group has insufficient free space")
	}
	l.cow, l.origin, l.show, l.bytes, l.active, l.used = true, o.name, o.extents, slices.Clone(o.bytes), o.active, "0.00"
	f.lvs = append(f.lvs, l)
	return nil
}

// together are the LVs that are active only together: a volume and its thick snapshots.
func (f *fakeVG) together(l *fakeLV) (all []*fakeLV) {
	name := l.name
	if l.cow {
		name = l.origin
	}
	for _, o := range f.lvs {
		if o == l || o.name == name || o.cow && o.origin == name {
			all = append(all, o)
		}
	}
	return all
}
