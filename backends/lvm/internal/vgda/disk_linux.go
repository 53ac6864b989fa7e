package vgda

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// block is what reads past the page cache are multiples of, whatever the disk.
const block = 4096

// direct is a disk that is read past the page cache, which knows nothing of what lvm
// wrote past it.
type direct struct{ f *os.File }

// read reads whole blocks, into memory that lies as O_DIRECT wants it.
func (d direct) read(off, n int64) ([]byte, error) {
	lead := off % block
	whole := (lead + n + block - 1) / block * block
	buf := make([]byte, whole+block)
	skip := block - int64(uintptr(unsafe.Pointer(&buf[0]))%block) //nolint:gosec // its address, for alignment
	buf = buf[skip : skip+whole]
	got, err := d.f.ReadAt(buf, off-lead)
	if int64(got) >= lead+n {
		return buf[lead : lead+n], nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

func open(path string) (direct, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT|unix.O_NONBLOCK, 0)
	return direct{f}, err
}

// Look reads the label and the header of one disk: two blocks.
func Look(path string) (*Copy, error) {
	d, err := open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.f.Close() }() // nothing was written
	c, err := look(d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Read reads the metadata that Look has found.
func (c *Copy) Read(path string) (*Group, error) {
	d, err := open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.f.Close() }() // nothing was written
	text, err := c.text(d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return Decode(text)
}
