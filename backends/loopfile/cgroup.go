package loopfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/csikit/csikit/backends"
)

// cgroup is a directory of the cgroup v2 hierarchy. What its io.max says of a
// device holds for its processes and those of all cgroups below it, together.
type cgroup string

func (c cgroup) file() string { return filepath.Join(string(c), "io.max") }

func (c cgroup) check() error {
	is, err := isCgroup2(string(c))
	switch {
	case err != nil:
		return fmt.Errorf("%w: I/O limits need cgroup %s: %w", backends.ErrPrecondition, c, err)
	case !is:
		return fmt.Errorf("%w: I/O limits need a cgroup, and %s is not in a cgroup v2 file system", backends.ErrPrecondition, c)
	}
	f, err := os.OpenFile(c.file(), os.O_WRONLY, 0)
	if notExist(err) {
		return fmt.Errorf("%w: cgroup %s has no io.max: it is the root, or the io controller is not on (write +io to cgroup.subtree_control of its parent)",
			backends.ErrPrecondition, c)
	}
	if err != nil {
		return fmt.Errorf("%w: I/O limits: %w", backends.ErrPrecondition, err)
	}
	return f.Close()
}

func (c cgroup) get(dev string) (l limits, err error) {
	b, err := os.ReadFile(c.file())
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
func parseLimits(line string) (l limits, err error) {
	for f := range strings.FieldsSeq(line) {
		key, value, _ := strings.Cut(f, "=")
		for i, p := range limitParams {
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

// set writes, and looks whether it holds.
func (c cgroup) set(dev string, l limits) error {
	f, err := os.OpenFile(c.file(), os.O_WRONLY, 0)
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
	got, err := c.get(dev)
	if err == nil && got != l {
		err = fmt.Errorf("%s has %v for device %s after %v was written", c.file(), got, dev, l)
	}
	return err
}

// loopNumber is "7:0" of "/dev/loop0".
func loopNumber(path string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), "dev"))
	return strings.TrimSpace(string(b)), err
}
