package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/mounter/mnt"
)

// world is all that a case has outside of the driver's memory, a line each:
// mounts, loop devices, the files of the pool with their meta, the records of the
// node, paths of the CO. What differs between two runs in any case (times, numbers
// of devices, random names) is left out.
type world []string

// look reads it. Running: the driver runs, and may keep spare files.
func (e *env) look(running bool) (world, error) {
	var w world
	err := errors.Join(e.mounts(&w), e.loopLines(&w), e.files(&w), e.records(&w, running), e.paths(&w))
	slices.Sort(w)
	return w, err
}

func (w *world) add(format string, args ...any) { *w = append(*w, fmt.Sprintf(format, args...)) }

func (e *env) relative(s string) string {
	return strings.NewReplacer(e.pool, "POOL", e.dir, "DIR").Replace(s)
}

func (e *env) mounts(w *world) error {
	all, err := mnt.List()
	loops := map[string]string{}
	for _, l := range e.loops() {
		loops[l.dev] = e.relative(l.backing)
	}
	for _, m := range all {
		if !strings.HasPrefix(m.Point, e.dir+"/") {
			continue
		}
		source := m.Source
		if backing, ok := loops[source]; ok {
			source = "loop of " + backing
		}
		root := m.Root
		if name := "/dev" + root; loops[name] != "" {
			root = "node of loop of " + loops[name]
		}
		w.add("mount %s: %s %s of %s, read-only %v", e.relative(m.Point), m.FSType, root, source, m.ReadOnly())
	}
	return err
}

type loop struct{ dev, backing, readOnly string }

// loops are those whose file is in the pool.
func (e *env) loops() []loop {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // the pattern is good
	var all []loop
	for _, f := range files {
		b, err := os.ReadFile(f)
		// In a chroot the kernel may show the path from outside of it.
		_, name, mine := strings.Cut(strings.TrimSpace(string(b)), e.pool+"/")
		if err != nil || !mine {
			continue // detached meanwhile, or another's
		}
		disk := filepath.Dir(filepath.Dir(f))
		ro, _ := os.ReadFile(filepath.Join(disk, "ro")) // gone meanwhile: ""
		all = append(all, loop{"/dev/" + filepath.Base(disk), e.pool + "/" + name, strings.TrimSpace(string(ro))})
	}
	return all
}

func (e *env) loopLines(w *world) error {
	for _, l := range e.loops() {
		w.add("loop of %s, read-only %s", e.relative(l.backing), l.readOnly)
	}
	return nil
}

// randomPart ends the names in .tmp and .trash.
var randomPart = regexp.MustCompile(`\.[a-z2-7]{8}(/|$)`)

func (e *env) files(w *world) error {
	return filepath.WalkDir(e.pool, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // moved away meanwhile: the next look sees where to
		}
		if err != nil || d.IsDir() && path == e.pool {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name := randomPart.ReplaceAllString(e.relative(path), ".RANDOM$1")
		switch {
		case d.IsDir():
			w.add("file %s: directory", name)
		case strings.HasSuffix(name, "/meta.json"):
			w.add("file %s: %s", name, meta(path))
		case strings.HasSuffix(name, ".json"), strings.HasPrefix(name, "POOL/.lock."): // who holds it
			w.add("file %s", name)
		default:
			st, _ := fi.Sys().(*unix.Stat_t)
			full := st != nil && st.Blocks*512 >= fi.Size()
			w.add("file %s: %d bytes, allocated in full %v", name, fi.Size(), full)
		}
		return nil
	})
}

// meta is what a meta.json says, without its times.
func meta(path string) string {
	b, err := os.ReadFile(path)
	var m map[string]any
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return err.Error()
	}
	delete(m, "created")
	b, err = json.Marshal(m) // sorts the keys
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// record is what is compared of a record of the node engine.
type record struct {
	Kind, Volume, Path, StagingPath, Phase, Access, Mode, FSType, Source, Own, For string
	ReadOnly                                                                       bool
	Device                                                                         *struct {
		Size     int64
		ReadOnly bool
	}
	Mounted *struct {
		FSType string
	}
	Format *struct{ State, FSType string }
}

func (e *env) records(w *world, running bool) error {
	all, err := os.ReadDir(e.path("state"))
	for _, f := range all {
		w.add("state %s", f.Name())
	}
	in, err2 := os.ReadDir(e.path("state/v1"))
	for _, f := range in {
		if running && strings.HasPrefix(f.Name(), ".tmp-") {
			continue
		}
		var r record
		b, err := os.ReadFile(filepath.Join(e.path("state/v1"), f.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			w.add("record %s: %v", f.Name(), err)
			continue
		}
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		w.add("record %s", e.relative(string(text)))
	}
	return errors.Join(err, err2)
}

// paths are those of the CO: staging directories and targets.
func (e *env) paths(w *world) error {
	all, err := filepath.Glob(e.path("staging-*"))
	targets, err2 := filepath.Glob(filepath.Join(e.path("pods"), "*"))
	for _, p := range append(all, targets...) {
		fi, err := os.Lstat(p)
		if err != nil {
			continue
		}
		w.add("path %s: %s", e.relative(p), fi.Mode().Type())
	}
	return errors.Join(err, err2)
}

// descriptors are those of the driver, without connections, and its children.
func (e *env) descriptors() (world, error) {
	dir := fmt.Sprintf("/proc/%d/fd", e.PID())
	all, err := os.ReadDir(dir)
	var w world
	for _, f := range all {
		to, err := os.Readlink(filepath.Join(dir, f.Name()))
		if err != nil || strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "pipe:") {
			continue // closed meanwhile; a connection of the test
		}
		w.add("descriptor of %s", e.relative(to))
	}
	for range e.children() {
		w.add("child process")
	}
	slices.Sort(w)
	return w, err
}

// patience is how long something is waited for that comes in a moment, unless it
// never does: a machine that is busy may stand still for seconds.
const patience = time.Minute

// settle waits until what is looked at is as it should be, and says at last what
// differs: what the kernel and the driver end in the background takes a moment.
func (b *bench) settle(want world, look func() (world, error)) error {
	for end := time.Now().Add(b.settles); ; time.Sleep(10 * time.Millisecond) {
		got, err := look()
		if err == nil {
			err = differ(want, got)
		}
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// differ lists the lines that only one of two has.
func differ(want, got world) error {
	count := map[string]int{}
	for _, l := range want {
		count[l]++
	}
	for _, l := range got {
		count[l]--
	}
	var text []string
	for l, n := range count {
		for ; n > 0; n-- {
			text = append(text, "expected, and not found: "+l)
		}
		for ; n < 0; n++ {
			text = append(text, "found, and not expected: "+l)
		}
	}
	if len(text) == 0 {
		return nil
	}
	slices.Sort(text)
	return errors.New(strings.Join(text, "\n\t"))
}
