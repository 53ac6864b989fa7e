package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// Verify checks every field of want that is set, on the open descriptor and in
// sysfs by device number. A field that differs, or that the device does not
// have, is a *MismatchError (backends.ErrPrecondition). A field that cannot be
// read is backends.ErrUnavailable: not known is not right.
//
// Serial and WWID of a partition are its disk's. The file behind a loop device
// must be shown whole: a partition of it, an offset or a size limit is a
// mismatch. An identity that says nothing besides Size, without Unverified, is
// refused.
func (d *Device) Verify(ctx context.Context, want backends.Identity) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	backing := want.BackingDev != 0 || want.BackingIno != 0
	known := want.Serial != "" || want.WWID != "" || want.DMUUID != "" || backing || want.Check != nil
	if !known && want.Unverified == "" {
		return d.mismatch("identity", "given by nothing besides its size", "a serial, WWID, dm uuid, backing file or check")
	}
	checks := []struct {
		set bool
		run func() error
	}{
		{want.Serial != "", func() error { return d.verifySerial(want.Serial) }},
		{want.WWID != "", func() error { return d.verifyWWID(want.WWID) }},
		{want.DMUUID != "", func() error { return d.verifyDM(want.DMUUID) }},
		{backing, func() error { return d.verifyBacking(want.BackingDev, want.BackingIno) }},
		{want.Size != 0, func() error { return d.verifySize(want.Size) }},
		{want.Check != nil, func() error { return want.Check(ctx, d.f) }},
	}
	for _, c := range checks {
		if !c.set {
			continue
		}
		if err := c.run(); err != nil {
			return err
		}
	}
	return nil
}

func (d *Device) mismatch(field, got, want string) error {
	return &MismatchError{Device: d.path, Field: field, Got: got, Want: want}
}

func (d *Device) verifySize(want int64) error {
	got, err := d.Size()
	if err != nil {
		return err
	}
	if got != want {
		return d.mismatch("size", strconv.FormatInt(got, 10), strconv.FormatInt(want, 10))
	}
	return nil
}

// verifySerial: NVMe and MMC have device/serial, virtio has serial, SCSI has the
// unit serial number page.
func (d *Device) verifySerial(want string) error {
	got, err := d.serials()
	if err != nil {
		return err
	}
	if slices.Contains(got, strings.TrimSpace(want)) {
		return nil
	}
	return d.mismatch("serial", show(got), strconv.Quote(want))
}

func (d *Device) serials() (got []string, err error) {
	for _, f := range []string{"serial", "device/serial"} {
		v, err := d.attr(f)
		if err != nil {
			return nil, err
		}
		got = appendSet(got, strings.TrimSpace(v))
	}
	page, err := d.attr("device/vpd_pg80")
	return appendSet(got, vpdSerial([]byte(page))), err
}

// verifyWWID: NVMe namespaces have wwid, uuid, nguid and eui, SCSI has
// device/wwid and the device identification page.
func (d *Device) verifyWWID(want string) error {
	got, err := d.wwids()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(got, func(g string) bool { return sameWWID(g, want) }) {
		return nil
	}
	return d.mismatch("wwid", show(got), strconv.Quote(want))
}

func (d *Device) wwids() (got []string, err error) {
	for _, f := range []string{"wwid", "device/wwid", "uuid", "nguid", "eui"} {
		v, err := d.attr(f)
		if err != nil {
			return nil, err
		}
		if v = strings.TrimSpace(v); v != "" && (f == "uuid" || f == "nguid" || f == "eui") {
			v = f + "." + v
		}
		got = appendSet(got, v)
	}
	page, err := d.attr("device/vpd_pg83")
	if err != nil {
		return nil, err
	}
	for _, id := range vpdDesignators([]byte(page)) {
		got = appendSet(got, id)
	}
	return got, nil
}

func (d *Device) dmNames() ([]string, error) {
	v, err := d.attrOf(d.sysDir(), "dm/uuid")
	return appendSet(nil, strings.TrimSpace(v)), err
}

func (d *Device) verifyDM(want string) error {
	got, err := d.dmNames()
	if err != nil {
		return err
	}
	if slices.Contains(got, want) {
		return nil
	}
	return d.mismatch("dm uuid", show(got), strconv.Quote(want))
}

func (d *Device) verifyBacking(dev, ino uint64) error {
	want := backingName(dev, ino)
	st, err := loopStatus(d.f)
	switch {
	case errors.Is(err, unix.ENXIO):
		return d.mismatch("backing file", "none (a loop device that is not attached)", want)
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL):
		return d.mismatch("backing file", "none (not a loop device)", want)
	case err != nil:
		return fmt.Errorf("%s: LOOP_GET_STATUS64: %w: %w", d.path, err, backends.ErrUnavailable)
	}
	if !sameBacking(st, dev, ino) {
		return d.mismatch("backing file", backingName(normal(st.Device), st.Inode), want)
	}
	if st.Offset != 0 || st.Sizelimit != 0 {
		return d.mismatch("part of the backing file", fmt.Sprintf("offset %d, size limit %d", st.Offset, st.Sizelimit), "all of it")
	}
	_, err = os.Stat(filepath.Join(d.sysDir(), "partition"))
	switch {
	case err == nil:
		return d.mismatch("part of the backing file", "a partition", "all of it")
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", err, backends.ErrUnavailable)
	}
	return nil
}

// attr reads an attribute of the disk, which for a partition is its parent.
func (d *Device) attr(name string) (string, error) {
	dir := d.sysDir()
	_, err := os.Stat(filepath.Join(dir, "partition"))
	if err == nil {
		// The link must be followed before ".." means the disk.
		if dir, err = filepath.EvalSymlinks(dir); err == nil {
			dir = filepath.Dir(dir)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w: %w", d.path, err, backends.ErrUnavailable)
	}
	return d.attrOf(dir, name)
}

// attrOf is "" when the device has no such attribute. A device without any
// directory in sysfs is an error: nothing can be known of it.
func (d *Device) attrOf(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err == nil {
		return string(b), nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if _, err = os.Stat(dir); err == nil {
			return "", nil
		}
	}
	// The driver has the file but no value behind it.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	return "", fmt.Errorf("%s: %w: %w", d.path, err, backends.ErrUnavailable)
}

func appendSet(s []string, v string) []string {
	if v == "" || slices.Contains(s, v) {
		return s
	}
	return append(s, v)
}

func show(s []string) string {
	if len(s) == 0 {
		return "not known to the kernel"
	}
	q := make([]string, len(s))
	for i, v := range s {
		q[i] = strconv.Quote(v)
	}
	return strings.Join(q, " or ")
}

func backingName(dev, ino uint64) string {
	return fmt.Sprintf("inode %d on %d:%d", ino, unix.Major(dev), unix.Minor(dev))
}
