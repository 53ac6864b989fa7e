package lvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/csikit/csikit/backends/command"
)

// fakeVG is a volume group without a kernel: what lvm reports and does to one, as
// far as this package asks for it. The VM's tests hold the real lvm to the same.
type fakeVG struct {
	mu       sync.Mutex
	name     string
	uuid     string
	extents  int64
	missing  int64
	lvs      []*fakeLV
	made     int
	changes  int      // commands that change something
	held     bool     // the metadata of the pool
	leaked   []string // LVs whose extents were given back with data in them
	commands []string
	// before and after see each command; an error is lvm's end at that moment.
	before, after func(args []string) error
}

type fakeLV struct {
	name, uuid, typ string
	extents         int64
	tags            []string
	active, open    bool
	health          string
	pool, origin    string
	data, meta      string
	whenFull        string
	zero            string
	filled          string // data, once it is active
	cow             bool   // a thick snapshot
	thin            int    // its ID in the pool
	show            int64  // extents that it shows; of a thick snapshot
	used            string // of its space, percent
	invalid         bool
	bytes           []byte // lazily; what was written
}

const fakeExtent = 4 << 20

func newFake() *fakeVG {
	f := &fakeVG{name: testVG, uuid: "zz4U8q-kv4Z-DXmg-NnP4-mrAJ-QQRV-vXdfEe", extents: 4000}
	f.lvs = append(f.lvs, &fakeLV{name: testPool, uuid: f.newUUID(), typ: "thin,pool", extents: 16, data: "0.00", meta: "10.00", zero: "zero", active: true})
	return f
}

func (f *fakeVG) newUUID() string {
	f.made++
	return fmt.Sprintf("%06d-AAAA-BBBB-CCCC-DDDD-EEEE-FFFFFF", f.made)
}

// exit is how a tool that failed ends.
func exit(code int, stderr string) error {
	return &command.ExitError{Argv: "lvm", Code: code, Stderr: stderr}
}

func (f *fakeVG) Run(ctx context.Context, c command.Cmd) (command.Result, error) {
	if err := ctx.Err(); err != nil {
		return command.Result{Code: -1}, err
	}
	if c.Path == "thin_dump" || c.Path == "thin_delta" {
		out, err := f.thinTool(c.Path, c.Args)
		return command.Result{Stdout: out}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.Path != "lvm" || len(c.Args) < 3 || c.Args[1] != "--config" {
		return command.Result{}, fmt.Errorf("not an lvm command: %v", c)
	}
	args := append([]string{c.Args[0]}, c.Args[3:]...)
	f.commands = append(f.commands, strings.Join(args, " "))
	if f.before != nil {
		if err := f.before(args); err != nil {
			return command.Result{Code: 5}, err
		}
	}
	out, err := f.run(args)
	if err == nil && f.after != nil {
		err = f.after(args)
	}
	return command.Result{Stdout: out}, err
}

// options takes the arguments apart: those with values, and what stands alone.
func options(args []string) (opts map[string][]string, rest []string) {
	alone := []string{"-qq", "--yes", "--ignoreactivationskip", "--nosuffix", "--snapshot", "--splitsnapshot", "-a", "--refresh", "--readonly"}
	opts = map[string][]string{}
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case slices.Contains(alone, a):
			opts[a] = append(opts[a], "")
		case strings.HasPrefix(a, "-") && i+1 < len(args):
			opts[a] = append(opts[a], args[i+1])
			i++
		default:
			rest = append(rest, a)
		}
	}
	return opts, rest
}

func (f *fakeVG) run(args []string) ([]byte, error) {
	opts, rest := options(args)
	for len(rest) > 1 && (args[0] == "lvchange" || args[0] == "lvremove") {
		one := slices.DeleteFunc(slices.Clone(args), func(a string) bool { return slices.Contains(rest[1:], a) })
		if _, err := f.run(one); err != nil {
			return nil, err
		}
		args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == rest[0] })
		opts, rest = options(args)
	}
	if args[0] == "lvs" && len(rest) == 0 {
		return f.report("lv", true), nil // of all VGs
	}
	if len(rest) != 1 && args[0] != "lvextend" {
		return nil, exit(3, "want one argument: "+strings.Join(args, " "))
	}
	vg, lv, _ := strings.Cut(rest[0], "/")
	if vg != f.name {
		return nil, exit(5, "Volume group \""+vg+"\" not found")
	}
	switch args[0] {
	case "lvs":
		return f.report("lv", true), nil
	case "fullreport":
		return f.report("vg", false), nil
	}
	f.changes++
	if f.missing > 0 {
		return nil, exit(5, "Cannot change VG "+vg+" while PVs are missing.")
	}
	if args[0] == "lvcreate" {
		return nil, f.create(opts, lv)
	}
	i := slices.IndexFunc(f.lvs, func(l *fakeLV) bool { return l.name == lv })
	if i < 0 {
		return nil, exit(5, "Failed to find logical volume \""+rest[0]+"\"")
	}
	return nil, f.change(args[0], opts, i)
}

func (f *fakeVG) free() int64 {
	n := f.extents
	for _, l := range f.lvs {
		if l.pool == "" {
			n -= l.extents
		}
	}
	return n
}

func (f *fakeVG) create(opts map[string][]string, of string) error {
	name := opts["--name"][0]
	if slices.ContainsFunc(f.lvs, func(l *fakeLV) bool { return l.name == name }) {
		return exit(5, "Logical Volume \""+name+"\" already exists in volume group \""+f.name+"\"")
	}
	l := &fakeLV{name: name, uuid: f.newUUID(), tags: opts["--addtag"], active: true, typ: "linear", thin: f.made}
	switch {
	case opts["--snapshot"] != nil:
		i := slices.IndexFunc(f.lvs, func(l *fakeLV) bool { return l.name == of })
		if i < 0 {
			return exit(5, "Failed to find logical volume "+of)
		}
		o := f.lvs[i]
		if o.pool == "" {
			return f.createThick(l, o, opts)
		}
		l.extents, l.pool, l.typ, l.data, l.origin, l.bytes = o.extents, o.pool, "thin,sparse", "0.00", o.name, slices.Clone(o.bytes)
		l.active = opts["--setactivationskip"][0] == "n"
	case opts["--type"][0] == "thin-pool":
		n, _ := strconv.ParseInt(strings.TrimSuffix(opts["--size"][0], "b"), 10, 64)
		l.extents, l.typ, l.data, l.meta, l.zero = (n+fakeExtent-1)/fakeExtent, "thin,pool", "0.00", "10.00", "zero"
		if l.extents+2 > f.free() {
			return exit(5, "Volume group has insufficient free space")
		}
	case opts["--type"][0] == "thin":
		n, _ := strconv.ParseInt(strings.TrimSuffix(opts["--virtualsize"][0], "b"), 10, 64)
		l.extents, l.pool, l.typ, l.data = n/fakeExtent, opts["--thinpool"][0], "thin,sparse", "0.00"
	default:
		l.typ = opts["--type"][0]
		l.extents, _ = strconv.ParseInt(opts["--extents"][0], 10, 64)
		if l.extents > f.free() {
			return exit(5, "Volume group has insufficient free space")
		}
	}
	f.lvs = append(f.lvs, l)
	return nil
}

func (f *fakeVG) change(what string, opts map[string][]string, i int) error {
	l := f.lvs[i]
	switch what {
	case "lvremove":
		if l.open {
			return exit(5, "Logical volume "+l.name+" in use.")
		}
		if slices.ContainsFunc(f.lvs, func(o *fakeLV) bool { return o.cow && o.origin == l.name }) {
			return exit(5, "Logical volume "+l.name+" has snapshots.") // it would remove them with --yes
		}
		if l.pool == "" && len(bytes.Trim(l.bytes, "\x00")) > 0 {
			f.leaked = append(f.leaked, l.name)
		}
		f.lvs = slices.Delete(f.lvs, i, i+1)
		for _, o := range f.lvs {
			if o.origin == l.name {
				o.origin = "" // of thin ones
			}
		}
	case "lvextend":
		if opts["--poolmetadatasize"] != nil {
			l.meta = "10.00"
			break
		}
		n, _ := strconv.ParseInt(opts["--extents"][0], 10, 64)
		if strings.HasPrefix(opts["--extents"][0], "+") {
			n += l.extents
		}
		if all := f.together(l); len(all) > 1 && l.active {
			return exit(5, "Snapshot origin volumes can be resized only while inactive: try lvchange -an.")
		}
		if l.pool == "" && n-l.extents > f.free() {
			return exit(5, "Insufficient free space")
		}
		l.extents = n
	case "lvchange":
		if opts["--addtag"] != nil && opts["--ignoreactivationskip"] != nil {
			return exit(3, "Command does not accept option: --ignoreactivationskip.")
		}
		if opts["--refresh"] != nil && l.health == "refresh needed" {
			l.health = ""
		}
		if a := opts["--activate"]; len(a) > 0 {
			for _, o := range f.together(l) {
				if a[0] == "n" && o.open {
					return exit(5, "Logical volume "+o.name+" in use.")
				}
			}
			for _, o := range f.together(l) {
				o.active = a[0] == "y"
			}
			if l.active && l.filled != "" {
				l.data = l.filled
			}
		}
		l.tags = slices.DeleteFunc(slices.Clone(l.tags), func(t string) bool { return slices.Contains(opts["--deltag"], t) })
		l.tags = append(l.tags, opts["--addtag"]...)
	case "lvconvert":
		if opts["--splitsnapshot"] == nil || !l.cow || l.open {
			return exit(5, "Command not permitted on LV "+l.name)
		}
		l.cow, l.origin = false, "" // and of its bytes what had been copied
	default:
		return exit(3, "No such command")
	}
	return nil
}

// report is written by hand: the suite asks for some ten thousand.
func (f *fakeVG) report(kind string, lvs bool) []byte {
	vg := jsonRow("vg_name", f.name, "vg_uuid", f.uuid, "vg_seqno", strconv.Itoa(f.changes), "vg_extent_size", strconv.Itoa(fakeExtent),
		"vg_extent_count", strconv.FormatInt(f.extents, 10), "vg_free_count", strconv.FormatInt(f.free(), 10),
		"vg_missing_pv_count", strconv.FormatInt(f.missing, 10), "vg_exported", "")
	if !lvs {
		half := strconv.FormatInt(f.free()/2*fakeExtent, 10)
		pv := func(name string) string {
			return "{" + jsonRow("pv_name", name, "pv_free", half, "pv_missing", "", "pv_allocatable", "allocatable") + "}"
		}
		return []byte(`{"report":[{"` + kind + `":[{` + vg + `}],"pv":[` + pv("/dev/a") + "," + pv("/dev/b") + `]}]}`)
	}
	is := func(b bool, s string) string {
		if b {
			return s
		}
		return ""
	}
	var rows []string
	for _, l := range f.lvs {
		rows = append(rows, "{"+vg+","+jsonRow(
			"lv_name", l.name, "lv_uuid", l.uuid, "lv_size", strconv.FormatInt(l.extents*fakeExtent, 10), "lv_tags", strings.Join(l.tags, ","),
			"lv_active", is(l.active, "active"), "lv_device_open", is(l.open, "open"), "lv_health_status", l.health, "pool_lv", l.pool, "origin", l.origin,
			"lv_layout", l.typ, "zero", l.zero, "lv_when_full", l.whenFull, "data_percent", l.data, "metadata_percent", l.meta, "sync_percent", "", "lv_metadata_size", metaSize(l),
			"seg_pe_ranges", "/dev/a:0-7", "lv_role", is(l.cow, "public,snapshot,thicksnapshot"), "origin_size", is(l.cow, strconv.FormatInt(l.show*fakeExtent, 10)),
			"snap_percent", is(l.cow && l.active && !l.invalid, l.used), "lv_snapshot_invalid", is(l.invalid && l.active, "snapshot invalid"), "thin_id", is(l.pool != "", strconv.Itoa(l.thin)),
		)+"}")
	}
	return []byte(`{"report":[{"lv":[` + strings.Join(rows, ",") + `]}]}`)
}

// jsonRow is what stands between the braces; lvm's own words need no escapes.
func jsonRow(kv ...string) string {
	var s strings.Builder
	for i := 0; i < len(kv); i += 2 {
		s.WriteString(`"` + kv[i] + `":"` + kv[i+1] + `"`)
		if i+2 < len(kv) {
			s.WriteByte(',')
		}
	}
	return s.String()
}

// The kernel of a fakeVG.

func (f *fakeVG) find(uuid string) *fakeLV {
	for _, l := range f.lvs {
		if "LVM-"+strings.ReplaceAll(f.uuid+l.uuid, "-", "") == uuid && l.active {
			return l
		}
	}
	return nil
}

func (f *fakeVG) device(uuid string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.find(uuid); l != nil {
		return "/dev/dm-" + l.name, nil
	}
	return "", nil
}

func (f *fakeVG) number(path string) (string, error) { return "253:" + path, nil }

func (f *fakeVG) busy(uuid string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.find(uuid)
	return l != nil && l.open, nil
}

func (f *fakeVG) exclusive(path, uuid string) (disk, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.find(uuid)
	if l == nil {
		return nil, errors.New("no such device " + path)
	}
	return &fakeDisk{f, l}, nil
}

func (f *fakeVG) mountOf(context.Context, string) (*os.File, error) { return nil, nil }

func (f *fakeVG) writes(string) (uint64, error) { return 0, nil }

func (f *fakeVG) suspended(string) ([]string, error) { return nil, nil }

func (f *fakeVG) readable(path, uuid string) (disk, error) { return f.exclusive(path, uuid) }

type fakeDisk struct {
	f *fakeVG
	l *fakeLV
}

func (d *fakeDisk) size() int64 {
	if d.l.cow {
		return d.l.show * fakeExtent
	}
	return d.l.extents * fakeExtent
}

func (d *fakeDisk) readAt(p []byte, off int64) error {
	if d.l.invalid {
		return errors.New("input/output error")
	}
	clear(p)
	if off < int64(len(d.l.bytes)) {
		copy(p, d.l.bytes[off:])
	}
	return nil
}

func (d *fakeDisk) writeAt(p []byte, off int64) error {
	if n := off + int64(len(p)) - int64(len(d.l.bytes)); n > 0 {
		d.l.bytes = append(d.l.bytes, make([]byte, n)...)
	}
	copy(d.l.bytes[off:], p)
	return nil
}

func (d *fakeDisk) zero(off, n int64, _ bool) error {
	if end := min(off+n, int64(len(d.l.bytes))); off < end {
		clear(d.l.bytes[off:end])
	}
	return nil
}
func (d *fakeDisk) sync() error  { return nil }
func (d *fakeDisk) close() error { return nil }

// onFake is a Backend over a fakeVG.
func onFake(t testing.TB, f *fakeVG, o Options) *Backend {
	t.Helper()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	b.tool.run, b.kernel, b.marks = f, f, t.TempDir()
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func metaSize(l *fakeLV) string {
	if l.typ != "thin,pool" {
		return ""
	}
	return strconv.Itoa(fakeExtent)
}
