package lvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/csikit/csikit/backends"
)

// group is a volume group at one moment: all of it, or it is an error.
type group struct {
	name, uuid    string
	seqno         uint64
	extent        int64 // bytes
	extents, free int64
	lvs           []*volume
	disks         []physical
}

// physical is a PV from which space can be taken.
type physical struct {
	name string
	free int64 // extents
}

// volume is an LV of anybody's.
type volume struct {
	g            *group
	name, uuid   string
	size         int64
	tags         []string
	active, open bool
	health       string // "", or what lvm says is wrong
	pool, origin string
	layout       string // "linear", "thin,sparse", "raid,raid1"
	zero         bool   // a pool that zeroes new chunks
	whenFull     string // of a pool: "error" or "queue"
	data, meta   float64
	metaSize     int64 // of a pool, bytes
	sync         float64
	partial      bool
	role         string  // "public,snapshot,thicksnapshot"
	originSize   int64   // of a thick snapshot: what its volume had
	filled       float64 // percent of the space of a thick snapshot; -1: it is not active
	invalid      bool    // a thick snapshot that ran out of space, or lost its disk
	thinID       int64   // in the metadata of its pool

	own *meta // nil: foreign
	bad error // own, but its tags cannot be read
}

func (v *volume) path() string { return v.g.name + "/" + v.name }

// dmUUID is that of its device-mapper device, as lvm builds it. It does not change
// when the LV or the VG is renamed.
func (v *volume) dmUUID() string {
	return "LVM-" + strings.ReplaceAll(v.g.uuid+v.uuid, "-", "")
}

// lvFields are what one report asks for: everything that any operation wants to
// know, so that one command does.
const (
	vgFields = "vg_name,vg_uuid,vg_seqno,vg_extent_size,vg_extent_count,vg_free_count,vg_missing_pv_count,vg_exported"
	pvFields = "pv_name,pv_free,pv_missing,pv_allocatable"
	lvFields = "lv_name,lv_uuid,lv_size,lv_tags,lv_active,lv_device_open,lv_health_status,pool_lv,origin,lv_layout," +
		"zero,lv_when_full,data_percent,metadata_percent,sync_percent,lv_metadata_size," +
		"lv_role,origin_size,snap_percent,lv_snapshot_invalid,thin_id"
)

var reportOptions = []string{"--reportformat", "json", "--units", "b", "--nosuffix"}

// row is one line of a report: lvm gives every value as a string.
type row map[string]string

type document struct {
	Report []map[string][]row `json:"report"`
}

// decodeReport reads what lvm wrote and gives the lines of each kind. Lines of the
// log that lvm mixes in are no JSON, and an error.
func decodeReport(out []byte) (map[string][]row, error) {
	var doc document
	if err := json.Unmarshal(out, &doc); err != nil {
		return nil, fmt.Errorf("%w: report of lvm: %w", backends.ErrUnavailable, err)
	}
	all := map[string][]row{}
	for _, r := range doc.Report {
		for kind, rows := range r {
			all[kind] = append(all[kind], rows...)
		}
	}
	return all, nil
}

// reader takes numbers out of a row and keeps the first failure.
type reader struct {
	row row
	err error
}

func (r *reader) text(key string) string {
	v, ok := r.row[key]
	if !ok {
		r.fail(key, "is missing")
	}
	return v
}

func (r *reader) int(key string) int64 {
	n, err := strconv.ParseInt(r.text(key), 10, 64)
	if err != nil || n < 0 {
		r.fail(key, strconv.Quote(r.row[key])+" is no number")
	}
	return n
}

// optional is a number that not every LV has.
func (r *reader) optional(key string) int64 {
	if r.text(key) == "" {
		return 0
	}
	return r.int(key)
}

// percent is -1 where lvm gives none.
func (r *reader) percent(key string) float64 {
	s := r.text(key)
	if s == "" {
		return -1
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		r.fail(key, strconv.Quote(s)+" is no number")
	}
	return f
}

func (r *reader) fail(key, why string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: report of lvm: %s %s", backends.ErrUnavailable, key, why)
	}
}

// decodeGroup reads the fields of a VG. One that is not all there is
// ErrUnavailable: what the missing disks hold, and whether theirs is the newer
// metadata, nobody knows.
func decodeGroup(name string, r row) (*group, error) {
	in := reader{row: r}
	g := &group{
		name: in.text("vg_name"), uuid: in.text("vg_uuid"), seqno: uint64(in.int("vg_seqno")), //nolint:gosec // not negative
		extent: in.int("vg_extent_size"), extents: in.int("vg_extent_count"), free: in.int("vg_free_count"),
	}
	missing, exported := in.int("vg_missing_pv_count"), in.text("vg_exported")
	switch {
	case in.err != nil:
		return nil, in.err
	case g.name != name || g.uuid == "" || g.extent <= 0:
		return nil, fmt.Errorf("%w: lvm reports volume group %q (%s) and was asked for %s", backends.ErrUnavailable, g.name, g.uuid, name)
	case exported != "":
		return nil, fmt.Errorf("%w: volume group %s is exported", backends.ErrUnavailable, name)
	case missing > 0:
		return g, &missingError{name, missing}
	}
	return g, nil
}

// missingError is a VG without some of its disks.
type missingError struct {
	vg string
	n  int64
}

func (e *missingError) Error() string {
	return fmt.Sprintf("volume group %s: %d of its physical volumes are missing", e.vg, e.n)
}
func (e *missingError) Unwrap() error { return backends.ErrUnavailable }

// decodeVolume reads one line of lvs.
func (g *group) decodeVolume(driver string, r row) (*volume, error) {
	in := reader{row: r}
	v := &volume{
		g: g, name: in.text("lv_name"), uuid: in.text("lv_uuid"), size: in.int("lv_size"),
		active: in.text("lv_active") == "active", open: in.text("lv_device_open") == "open",
		health: in.text("lv_health_status"), pool: in.text("pool_lv"), origin: in.text("origin"),
		layout: in.text("lv_layout"), zero: in.text("zero") == "zero", whenFull: in.text("lv_when_full"),
		data: in.percent("data_percent"), meta: in.percent("metadata_percent"), sync: in.percent("sync_percent"),
		role: in.text("lv_role"), originSize: in.optional("origin_size"), filled: in.percent("snap_percent"),
		thinID: in.optional("thin_id"),
	}
	// What is not active says "unknown".
	if s := in.text("lv_snapshot_invalid"); s != "" && s != "unknown" {
		v.invalid = true
	}
	v.tags = tagsOf(in.text("lv_tags"))
	if s := in.text("lv_metadata_size"); s != "" {
		v.metaSize = in.int("lv_metadata_size")
	}
	if in.err != nil {
		return nil, in.err
	}
	if !validName(v.name) || !lvmUUID.MatchString(v.uuid) {
		return nil, fmt.Errorf("%w: report of lvm: logical volume %q (%s)", backends.ErrUnavailable, v.name, v.uuid)
	}
	v.partial = strings.Contains(v.health, "partial")
	v.decodeOwn(driver)
	return v, nil
}

// tagsOf takes a list of tags apart.
func tagsOf(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// decodeOwn reads the tags.
func (v *volume) decodeOwn(driver string) {
	own, err := decodeTags(driver, v.tags)
	switch {
	case err == nil:
		v.own = own
	case !errors.Is(err, errForeign):
		v.bad = fmt.Errorf("logical volume %s: %w", v.path(), err)
	}
}

// decodeVolumes reads a report of lvs, in which each line says of which VG it is.
func decodeVolumes(driver, vg string, out []byte) (*group, error) {
	all, err := decodeReport(out)
	if err != nil || len(all["lv"]) == 0 {
		return nil, err
	}
	g, missing := decodeGroup(vg, all["lv"][0])
	if g == nil {
		return nil, missing
	}
	seen := map[string]bool{}
	for _, r := range all["lv"] {
		v, err := g.decodeVolume(driver, r)
		if err != nil {
			return nil, err
		}
		// Some fields are of segments: then there is a line for each.
		if !seen[v.uuid] {
			g.lvs = append(g.lvs, v)
		}
		seen[v.uuid] = true
	}
	return g, missing
}

// decodeDisks reads a report of pvs for one VG.
func decodeDisks(vg string, out []byte) (*group, error) {
	all, err := decodeReport(out)
	if err != nil {
		return nil, err
	}
	if len(all["vg"]) != 1 {
		return nil, fmt.Errorf("%w: lvm reports %d volume groups named %s", backends.ErrUnavailable, len(all["vg"]), vg)
	}
	g, missing := decodeGroup(vg, all["vg"][0])
	if g == nil {
		return nil, missing
	}
	for _, r := range all["pv"] {
		in := reader{row: r}
		d := physical{name: in.text("pv_name"), free: in.int("pv_free") / g.extent}
		usable := in.text("pv_missing") == "" && in.text("pv_allocatable") != ""
		if in.err != nil {
			return nil, in.err
		}
		if usable {
			g.disks = append(g.disks, d)
		}
	}
	return g, missing
}

// fetch asks lvm for all that is known of a VG. A VG with missing disks is both a
// group and an error.
func (b *Backend) fetch(ctx context.Context, vg string) (*group, error) {
	out, err := b.tool.read(ctx, vg, append(append([]string{"lvs"}, reportOptions...), "-o", vgFields+","+lvFields, vg)...)
	if err != nil {
		return nil, err
	}
	g, err := b.reports.decoded(vg, out, func() (*group, error) { return decodeVolumes(b.o.Driver, vg, out) })
	if g == nil && err == nil {
		// No LV, and so no line that tells of the VG.
		return b.fetchDisks(ctx, vg)
	}
	return g, err
}

// fetchDisks asks for the VG and its PVs, without LVs.
func (b *Backend) fetchDisks(ctx context.Context, vg string) (*group, error) {
	args := append([]string{"fullreport"}, reportOptions...)
	for kind, fields := range map[string]string{"vg": vgFields, "pv": pvFields, "lv": "lv_name", "pvseg": "pv_name", "seg": "lv_name"} {
		args = append(args, "--configreport", kind, "-o", fields)
	}
	out, err := b.tool.read(ctx, vg, append(args, vg)...)
	if err != nil {
		return nil, err
	}
	return decodeDisks(vg, out)
}
