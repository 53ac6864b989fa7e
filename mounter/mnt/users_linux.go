package mnt

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// FindUsers names who uses the block device with this number, for the message of
// an operation that found it busy: mounts of it in any mount namespace, devices
// made on top of it, and processes that have it open. It is bounded in time and
// number, leaves out what it cannot read, and asks no file system anything; an
// empty answer proves nothing.
func FindUsers(dev uint64) []string {
	s := newSearch()
	sys := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev))
	upper, _ := filepath.Glob(sys + "/holders/*") // the pattern is right
	for _, h := range upper {
		s.add("device %s", filepath.Base(h))
	}
	node := deviceName(sys)
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	seen := map[string]bool{}
	for _, proc := range procs {
		if s.full() {
			break
		}
		if ns, err := os.Readlink(proc + "/ns/mnt"); err == nil && !seen[ns] {
			seen[ns] = true
			s.mountsOf(proc, dev)
		}
		if node == "" {
			continue
		}
		if what := s.processUse(proc, node); what != "" {
			s.add("process %s (%s) by %s", filepath.Base(proc), command(proc), what)
		}
	}
	return s.found
}

// mountsOf adds the mounts of the device in the namespace of one process.
func (s *search) mountsOf(proc string, dev uint64) {
	f, err := os.Open(proc + "/mountinfo")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // read only
	for lines := bufio.NewScanner(f); lines.Scan() && !s.full(); {
		i, err := parseLine(lines.Text())
		if err == nil && i.Dev == dev {
			s.add("mount %s in the namespace of process %s (%s)", i.Point, filepath.Base(proc), command(proc))
		}
	}
}

// deviceName returns the path of the device node, or "" when the device is gone.
func deviceName(sys string) string {
	text, err := os.ReadFile(sys + "/uevent")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "DEVNAME="); ok {
			return "/dev/" + strings.TrimSpace(name)
		}
	}
	return ""
}
