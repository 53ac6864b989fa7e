package blockdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// Relate says whether the device with number num is d's disk too, by what the
// kernel knows of both: what lies on top of what, the files behind loop devices, the
// names that disks have of themselves.
func (d *Device) Relate(num uint64) (Relation, error) {
	o := &Device{path: fmt.Sprintf("%d:%d", unix.Major(num), unix.Minor(num)), num: normal(num), sys: d.sys}
	if o.num == d.num {
		return Same, nil
	}
	for _, relate := range []func(o *Device) (Relation, error){d.byStack, d.byBacking, d.byName} {
		if r, err := relate(o); r != Unrelated || err != nil {
			return r, err
		}
	}
	return Unrelated, nil
}

// place is a disk, as a directory of sysfs, and which part of it: "" is all.
func (d *Device) place() (disk, part string, err error) {
	dir, err := filepath.EvalSymlinks(d.sysDir())
	if err != nil {
		return "", "", fmt.Errorf("%s: %w: %w", d.path, err, backends.ErrUnavailable)
	}
	b, err := os.ReadFile(filepath.Join(dir, "partition"))
	if errors.Is(err, fs.ErrNotExist) {
		return dir, "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("%s: %w: %w", d.path, err, backends.ErrUnavailable)
	}
	return filepath.Dir(dir), strings.TrimSpace(string(b)), nil
}

// byStack knows partitions, and what device-mapper and md lay on what.
func (d *Device) byStack(o *Device) (Relation, error) {
	disk, part, err := d.place()
	if err != nil {
		return Unrelated, err
	}
	other, otherPart, err := o.place()
	switch {
	case err != nil:
		return Unrelated, err
	case disk != other && (liesOn(disk, part, o) || liesOn(other, otherPart, d)):
		return Same, nil
	case disk != other:
		return Unrelated, nil
	case part != "" && otherPart != "":
		return Different, nil
	}
	return Same, nil
}

// liesOn reports whether o is among the devices that disk a lies on: o itself, the
// disk of which it is a part, or a part of it.
func liesOn(a, part string, o *Device) bool {
	const deep = 8
	own, err := filepath.EvalSymlinks(o.sysDir())
	if err != nil || part != "" {
		return false // of a part its disk is asked for
	}
	level := []string{a}
	for range deep {
		var next []string
		for _, l := range level {
			links, _ := filepath.Glob(filepath.Join(l, "slaves/*")) // its only error is of the pattern
			for _, s := range links {
				dir, err := filepath.EvalSymlinks(s)
				if err != nil {
					continue // it has just gone
				}
				if dir == own || filepath.Dir(dir) == own || dir == filepath.Dir(own) {
					return true
				}
				next = append(next, dir)
			}
		}
		level = next
	}
	return false
}

// byBacking compares the files behind loop devices.
func (d *Device) byBacking(o *Device) (Relation, error) {
	a, aIs, err := d.backing()
	if err != nil {
		return Unrelated, err
	}
	b, bIs, err := o.backing()
	switch {
	case err != nil || !aIs && !bIs:
		return Unrelated, err
	case aIs != bIs || a != b:
		return Different, nil
	}
	return Same, nil
}

// backing names the file behind a loop device.
func (d *Device) backing() (file string, loop bool, err error) {
	disk, _, err := d.place()
	if err != nil {
		return "", false, err
	}
	if _, err := os.Stat(filepath.Join(disk, "loop")); err != nil {
		return "", false, nil //nolint:nilerr // no loop device, or not attached
	}
	f, err := os.Open(filepath.Join("/dev", filepath.Base(disk)))
	if err != nil {
		return "", true, fmt.Errorf("%w: %w", err, backends.ErrUnavailable)
	}
	defer f.Close() //nolint:errcheck // nothing is written
	st, err := loopStatus(f)
	if err != nil {
		return "", true, fmt.Errorf("%s: LOOP_GET_STATUS64: %w: %w", f.Name(), err, backends.ErrUnavailable)
	}
	return backingName(normal(st.Device), st.Inode) + fmt.Sprint(" at ", st.Offset), true, nil
}

// byName compares what disks call themselves. A serial number that is the same says
// nothing: some arrays give all their units the same.
func (d *Device) byName(o *Device) (Relation, error) {
	for _, names := range []struct {
		of    func(*Device) ([]string, error)
		equal Relation
	}{{(*Device).dmNames, Same}, {(*Device).wwids, Same}, {(*Device).serials, Unrelated}} {
		a, err := names.of(d)
		if err != nil {
			return Unrelated, err
		}
		b, err := names.of(o)
		switch {
		case err != nil:
			return Unrelated, err
		case len(a) == 0 || len(b) == 0:
			continue
		case !slices.ContainsFunc(a, func(x string) bool { return slices.ContainsFunc(b, func(y string) bool { return sameWWID(x, y) }) }):
			return Different, nil
		case names.equal == Same:
			return d.sameParts(o)
		}
	}
	return Unrelated, nil
}

// sameParts compares the parts of what is one disk.
func (d *Device) sameParts(o *Device) (Relation, error) {
	_, a, err := d.place()
	if err != nil {
		return Unrelated, err
	}
	_, b, err := o.place()
	if err == nil && a != "" && b != "" && a != b {
		return Different, nil
	}
	return Same, err
}
