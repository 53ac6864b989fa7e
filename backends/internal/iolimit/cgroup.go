package iolimit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/csikit/csikit/backends"
)

// Cgroup is a directory of the cgroup v2 hierarchy. What its io.max says of a
// device holds for its processes and those of all cgroups below it, together.
type Cgroup string

// File is its io.max.
func (c Cgroup) File() string { return filepath.Join(string(c), "io.max") }

// Check looks whether limits can be written there.
func (c Cgroup) Check() error {
	is, err := isCgroup2(string(c))
	switch {
	case err != nil:
		return fmt.Errorf("%w: I/O limits need cgroup %s: %w", backends.ErrPrecondition, c, err)
	case !is:
		return fmt.Errorf("%w: I/O limits need a cgroup, and %s is not in a cgroup v2 file system", backends.ErrPrecondition, c)
	}
	f, err := os.OpenFile(c.File(), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: cgroup %s has no io.max: it is the root, or the io controller is not on (write +io to cgroup.subtree_control of its parent)",
			backends.ErrPrecondition, c)
	}
	if err != nil {
		return fmt.Errorf("%w: I/O limits: %w", backends.ErrPrecondition, err)
	}
	return f.Close()
}

// Get reads the limits of a device, "7:0".
func (c Cgroup) Get(dev string) (l Limits, err error) {
	b, err := os.ReadFile(c.File())
	if err != nil {
		return l, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, dev+" "); ok {
			return parseLimits(rest)
		}
	}
	return l, nil
}

// parseLimits reads "rbps=1048576 wbps=max riops=max wiops=max".
func parseLimits(line string) (l Limits, err error) {
	for f := range strings.FieldsSeq(line) {
		key, value, _ := strings.Cut(f, "=")
		for i, p := range params {
			if p.key != key || value == "max" {
				continue
			}
			if l[i], err = strconv.ParseUint(value, 10, 64); err != nil {
				return l, fmt.Errorf("io.max: %w", err)
			}
		}
	}
	return l, nil
}

// Set writes, and looks whether it holds.
func (c Cgroup) Set(dev string, l Limits) error {
	f, err := os.OpenFile(c.File(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	line := dev + " " + l.String()
	_, err = f.WriteString(line)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write %q: %w", line, err)
	}
	got, err := c.Get(dev)
	if err == nil && got != l {
		err = fmt.Errorf("%s has %v for device %s after %v was written", c.File(), got, dev, l)
	}
	return err
}

// Number is "7:0" of "/dev/loop0".
func Number(path string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), "dev"))
	return strings.TrimSpace(string(b)), err
}
