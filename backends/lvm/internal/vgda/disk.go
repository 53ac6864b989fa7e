// Package vgda reads the metadata of a volume group as lvm has written it to the
// group's disks: the label, the header of the metadata area, the text. It writes
// nothing, and knows nothing of what the kernel does. lvm commits a change by writing
// one sector, the header, so that a reader has the state before or after it, and by
// two checksums whether what it read is whole.
//
// It is for what a process that has seen the whole group by lvm itself wants to know
// again, without a process that takes a tenth of a second. All doubts are errors, and
// lvm is asked.
package vgda

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// Copy is the metadata on one disk.
type Copy struct {
	Disk string // UUID of the PV, without dashes
	// Mark tells one state of the group from another, and is the same on all its
	// disks; "": this disk has no metadata.
	Mark string
	area area
}

// area is where a metadata text is.
type area struct {
	start, size  int64 // of the whole area, on the disk
	offset, used int64 // of the text in it
	sum          uint32
}

// ErrFormat is what is not, or not any more, what lvm writes.
var ErrFormat = errors.New("no metadata of lvm")

// reader reads a disk; in whole blocks, past the page cache.
type reader interface {
	read(off, n int64) ([]byte, error)
}

const (
	headSize  = 8 << 10 // the label, and the first header where lvm puts it
	maxText   = 64 << 20
	mdaHeader = 512
)

// checksum is lvm's: CRC-32 with a start of its own, and not inverted.
func checksum(b []byte) uint32 { return ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, b) }

// look reads what is at the head of a disk.
func look(r reader) (*Copy, error) {
	head, err := r.read(0, headSize)
	if err != nil {
		return nil, err
	}
	for s := range 4 {
		b := head[s*sector : (s+1)*sector]
		if bytes.HasPrefix(b, []byte("LABELONE")) {
			return labelled(r, head, b, uint64(s)) //nolint:gosec // 0 to 3
		}
	}
	return nil, fmt.Errorf("%w: no label", ErrFormat)
}

func labelled(r reader, head, b []byte, at uint64) (*Copy, error) {
	le := binary.LittleEndian
	if le.Uint64(b[8:]) != at || checksum(b[20:]) != le.Uint32(b[16:]) || string(b[24:32]) != "LVM2 001" {
		return nil, fmt.Errorf("%w: label", ErrFormat)
	}
	off := int(le.Uint32(b[20:]))
	if off < 32 || off+40 > sector {
		return nil, fmt.Errorf("%w: label", ErrFormat)
	}
	c := &Copy{Disk: string(b[off : off+32])}
	p, lists := off+40, 0
	var areas []area
	for lists < 2 { // data areas, then metadata areas, each list ended by zeros
		if p+16 > sector {
			return nil, fmt.Errorf("%w: label", ErrFormat)
		}
		start, size := int64(le.Uint64(b[p:])), int64(le.Uint64(b[p+8:])) //nolint:gosec // looked at below
		p += 16
		switch {
		case start == 0:
			lists++
		case lists == 1:
			areas = append(areas, area{start: start, size: size})
		}
	}
	for _, a := range areas {
		if err := c.header(r, head, a); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// header reads one sector, which is all that lvm writes to commit a change.
func (c *Copy) header(r reader, head []byte, a area) error {
	if a.start < mdaHeader || a.start%sector != 0 || a.size <= mdaHeader {
		return fmt.Errorf("%w: metadata area at %d", ErrFormat, a.start)
	}
	b := head
	if a.start+mdaHeader <= int64(len(head)) {
		b = head[a.start:]
	} else {
		var err error
		if b, err = r.read(a.start, mdaHeader); err != nil {
			return err
		}
	}
	b = b[:mdaHeader]
	le := binary.LittleEndian
	if le.Uint32(b) != checksum(b[4:]) || string(b[4:20]) != " LVM2 x[5A%r0N*>" || le.Uint32(b[20:]) != 1 || int64(le.Uint64(b[24:])) != a.start { //nolint:gosec // compared
		return fmt.Errorf("%w: header of the metadata area at %d", ErrFormat, a.start)
	}
	const ignored = 1
	loc := b[40:64]                                                                                 // the first place is of what is committed
	a.offset, a.used, a.sum = int64(le.Uint64(loc)), int64(le.Uint64(loc[8:])), le.Uint32(loc[16:]) //nolint:gosec // looked at below
	if le.Uint32(loc[20:])&ignored != 0 {
		return nil
	}
	if a.offset < mdaHeader || a.offset >= a.size || a.used <= 0 || a.used > min(a.size-mdaHeader, maxText) {
		return fmt.Errorf("%w: no volume group in the metadata area at %d", ErrFormat, a.start)
	}
	mark := fmt.Sprintf("%08x-%d", a.sum, a.used)
	if c.Mark != "" && c.Mark != mark {
		return fmt.Errorf("%w: two metadata areas differ", ErrFormat)
	}
	c.Mark, c.area = mark, a
	return nil
}

// text reads the metadata itself: the area is a ring behind its header.
func (c *Copy) text(r reader) (string, error) {
	a := c.area
	first := min(a.used, a.size-a.offset)
	b, err := r.read(a.start+a.offset, first)
	if err != nil {
		return "", err
	}
	if rest := a.used - first; rest > 0 {
		more, err := r.read(a.start+mdaHeader, rest)
		if err != nil {
			return "", err
		}
		b = append(b[:first:first], more...)
	}
	if checksum(b) != a.sum {
		return "", fmt.Errorf("%w: checksum of the metadata", ErrFormat)
	}
	return string(b), nil
}

// Plain is a UUID as it is on disk, without the dashes that lvm shows.
func Plain(uuid string) string { return strings.ReplaceAll(uuid, "-", "") }
