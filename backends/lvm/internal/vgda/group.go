package vgda

import (
	"fmt"
	"slices"
	"strings"
)

// Group is a volume group as its metadata describes it.
type Group struct {
	Name, ID string
	Seqno    uint64
	// SystemID, Status and Lock say who may use it.
	SystemID, Lock string
	Status         []string
	Extent         int64 // bytes
	Disks          []Disk
	Snapshots      bool     // there are some of the old kind
	Volumes        []Volume // those that lvs shows without -a
}

// Disk is a PV.
type Disk struct {
	ID          string
	Extents     int64
	Used        int64 // extents
	Allocatable bool
	Missing     bool
}

// Volume is an LV.
type Volume struct {
	Name, ID      string
	Extents       int64
	Tags          []string
	Type          string // of its first segment: striped, thin, thin-pool, raid1, ...
	Segments      int
	Legs          int // disks of a striped segment
	Pool, Origin  string
	Zero          bool // of a pool: new chunks are zeroed
	ErrorWhenFull bool
	MetadataLV    string // of a pool
	ThinID        int64  // in the metadata of its pool
	Writable      bool
}

const sector = 512

// Decode reads the text of a VG's metadata.
func Decode(text string) (*Group, error) {
	all, err := parse(text)
	if err != nil {
		return nil, err
	}
	g := &Group{}
	var in section
	for name, v := range all {
		if s, ok := v.(section); ok {
			if in != nil {
				return nil, fmt.Errorf("%w: several volume groups", errSyntax)
			}
			g.Name, in = name, s
		}
	}
	if in == nil {
		return nil, fmt.Errorf("%w: no volume group", errSyntax)
	}
	f := fields{s: in}
	g.ID, g.Seqno, g.Extent = f.text("id"), uint64(f.int("seqno")), f.int("extent_size")*sector //nolint:gosec // not negative
	g.Status, g.SystemID, g.Lock = f.list("status"), f.maybe("system_id"), f.maybe("lock_type")
	if f.err != nil {
		return nil, f.err
	}
	index := map[string]int{}
	if err := g.decodeDisks(in, index); err != nil {
		return nil, err
	}
	return g, g.decodeVolumes(in, index)
}

func (g *Group) decodeDisks(in section, index map[string]int) error {
	disks, _ := in["physical_volumes"].(section)
	for name, v := range disks {
		s, ok := v.(section)
		if !ok {
			return fmt.Errorf("%w: physical volume %s", errSyntax, name)
		}
		f := fields{s: s}
		d := Disk{
			ID: f.text("id"), Extents: f.int("pe_count"), Allocatable: slices.Contains(f.list("status"), "ALLOCATABLE"),
			Missing: slices.Contains(f.list("flags"), "MISSING"),
		}
		if f.err != nil {
			return fmt.Errorf("physical volume %s: %w", name, f.err)
		}
		index[name] = len(g.Disks)
		g.Disks = append(g.Disks, d)
	}
	if len(g.Disks) == 0 {
		return fmt.Errorf("%w: no physical volumes", errSyntax)
	}
	return nil
}

func (g *Group) decodeVolumes(in section, index map[string]int) error {
	lvs, _ := in["logical_volumes"].(section)
	origins := map[string]string{} // by the LV that has the old blocks
	for name, v := range lvs {
		s, ok := v.(section)
		if !ok {
			return fmt.Errorf("%w: logical volume %s", errSyntax, name)
		}
		if err := g.decodeVolume(name, s, index, origins); err != nil {
			return fmt.Errorf("logical volume %s: %w", name, err)
		}
	}
	for i := range g.Volumes {
		if o := origins[g.Volumes[i].Name]; o != "" {
			g.Volumes[i].Origin = o
		}
	}
	slices.SortFunc(g.Volumes, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func (g *Group) decodeVolume(name string, s section, index map[string]int, origins map[string]string) error {
	f := fields{s: s}
	status := f.list("status")
	v := Volume{Name: name, ID: f.text("id"), Tags: f.list("tags"), Segments: int(f.int("segment_count")), Writable: slices.Contains(status, "WRITE")}
	if f.err != nil {
		return f.err
	}
	for i := 1; i <= v.Segments; i++ {
		seg, ok := s[fmt.Sprintf("segment%d", i)].(section)
		if !ok {
			return fmt.Errorf("%w: segment %d", errSyntax, i)
		}
		if err := g.decodeSegment(&v, seg, i == 1, index, origins); err != nil {
			return fmt.Errorf("segment %d: %w", i, err)
		}
	}
	if slices.Contains(status, "VISIBLE") {
		g.Volumes = append(g.Volumes, v)
	}
	return nil
}

func (g *Group) decodeSegment(v *Volume, s section, first bool, index map[string]int, origins map[string]string) error {
	f := fields{s: s}
	n, typ := f.int("extent_count"), f.text("type")
	if f.err != nil {
		return f.err
	}
	v.Extents += n
	areas, _ := s["stripes"].([]any)
	copies, _ := s["mirrors"].([]any) // what pvmove moves is on two disks meanwhile
	if len(areas)%2 != 0 || len(copies)%2 != 0 {
		return errSyntax
	}
	g.take(areas, n*2/max(1, int64(len(areas))), index)
	g.take(copies, n, index)
	if origin := f.maybe("origin"); typ == "snapshot" {
		origins[f.maybe("cow_store")] = origin
		g.Snapshots = true
	} else if first {
		if v.Origin = origin; origin == "" { // of a thin one, what it has not of its own
			v.Origin = f.maybe("external_origin")
		}
	}
	if first {
		zero, _ := s["zero_new_blocks"].(int64)
		v.ThinID, _ = s["device_id"].(int64)
		full, _ := s["error_if_no_space"].(int64)
		v.Type, v.Pool, v.Legs = typ, f.maybe("thin_pool"), len(areas)/2
		v.Zero, v.ErrorWhenFull, v.MetadataLV = zero == 1, full == 1, f.maybe("metadata")
	}
	return nil
}

// take counts n extents on each disk of a list of disks and offsets.
func (g *Group) take(areas []any, n int64, index map[string]int) {
	for i := 0; i < len(areas); i += 2 {
		on, _ := areas[i].(string)
		if d, ok := index[on]; ok {
			g.Disks[d].Used += n
		}
	}
}

// Free is how many extents of all disks nobody has.
func (g *Group) Free() (n int64) {
	for _, d := range g.Disks {
		n += d.Extents - d.Used
	}
	return n
}

// Extents of all disks.
func (g *Group) Extents() (n int64) {
	for _, d := range g.Disks {
		n += d.Extents
	}
	return n
}

// Complete says that no disk is marked as missing, and that nothing keeps this host
// from using the group as it is.
func (g *Group) Complete() bool {
	return !slices.ContainsFunc(g.Disks, func(d Disk) bool { return d.Missing }) &&
		!slices.Contains(g.Status, "EXPORTED") && !slices.Contains(g.Status, "PARTIAL")
}
