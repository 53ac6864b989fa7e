package mnt

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Bounds of a search for holders: it runs only when something has failed
// already, and must not make that worse. A node that is busy has hundreds of
// processes and little time: whoever waits for a name waits for the second.
const (
	holderTime  = time.Second
	holderCount = 8
)

// search collects who holds something, within its bounds.
type search struct {
	end   time.Time
	found []string
}

func newSearch() *search { return &search{end: time.Now().Add(holderTime)} }

func (s *search) full() bool { return len(s.found) >= holderCount || time.Now().After(s.end) }

func (s *search) add(format string, args ...any) {
	if len(s.found) < holderCount {
		s.found = append(s.found, fmt.Sprintf(format, args...))
	}
}

// holders names what keeps the mount at p busy: mounts on it, processes with
// files, mappings, their directory or their program on it, and loop devices. It compares
// names, and so asks no file system anything. Being a report, it leaves out what
// it cannot read.
func holders(p string) []string {
	dir, err := resolve(p)
	if err != nil {
		return nil
	}
	s := newSearch()
	s.mounts(dir)
	s.loops(dir)
	s.processes(dir)
	return s.found
}

func (s *search) mounts(dir string) {
	list, err := List()
	if err != nil {
		return
	}
	for _, i := range list {
		if i.Point != dir && below(i.Point, dir) {
			s.add("mount %s", i.Point)
		}
	}
}

func (s *search) loops(dir string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // the pattern is right
	for _, f := range files {
		name, err := os.ReadFile(f)
		if err == nil && below(strings.TrimSpace(string(name)), dir) {
			s.add("/dev/%s", filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
}

func (s *search) processes(dir string) {
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, proc := range procs {
		if s.full() {
			return
		}
		if what := s.processUse(proc, dir); what != "" {
			s.add("process %s (%s) by %s", filepath.Base(proc), command(proc), what)
		}
	}
}

// processUse returns which link of the process leads into dir.
func (s *search) processUse(proc, dir string) string {
	links := []string{"cwd", "root", "exe"}
	if fds, err := os.ReadDir(proc + "/fd"); err == nil {
		for _, fd := range fds {
			links = append(links, "fd/"+fd.Name())
		}
	}
	for _, l := range links {
		name, err := os.Readlink(proc + "/" + l)
		if err == nil && below(name, dir) {
			return l
		}
		if s.full() {
			return ""
		}
	}
	return mapped(proc, dir)
}

// mapped returns "a mapping" when the process has mapped a file in dir, which it
// may have closed since.
func mapped(proc, dir string) string {
	f, err := os.Open(proc + "/maps")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // read only
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if at := strings.IndexByte(lines.Text(), '/'); at >= 0 && below(unescape(lines.Text()[at:]), dir) {
			return "a mapping"
		}
	}
	return ""
}

func command(proc string) string {
	comm, err := os.ReadFile(proc + "/comm")
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(comm))
}
