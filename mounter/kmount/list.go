package kmount

import (
	"hash/fnv"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/csikit/csikit/mounter/mnt"
)

// list makes mnt.Infos of what a mount.Interface lists.
type list struct {
	mu sync.Mutex
	// memory has the options of the mounts that were made here, by path: a
	// FakeMounter forgets those of all mounts at every Unmount. Whatever lists
	// options has rw or ro among them, and is believed.
	memory map[string][]string
}

func (l *list) remember(path string, options []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.memory[path] = options
}

func (l *list) forget(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.memory, path)
}

func (l *list) options(path string, listed []string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(listed) == 0 {
		listed = l.memory[path]
	}
	if !slices.Contains(listed, "ro") && !slices.Contains(listed, "rw") {
		listed = append([]string{"rw"}, listed...)
	}
	return listed
}

// infos are the mounts in the order of the list.
type infos []mnt.Info

func (k *overInterface) infos() (infos, error) {
	points, err := k.m.List()
	if err != nil {
		return nil, err
	}
	points = slices.Clone(points) // a FakeMounter gives its own
	types := map[string]string{}
	for _, p := range points {
		if p.Type != "" {
			types[p.Device] = p.Type
		}
	}
	all := make(infos, len(points))
	depth := map[string]int{}
	for i, p := range points {
		path, source := decode(p.Path), decode(p.Device)
		depth[path]++
		fsType := p.Type
		if fsType == "" && !k.isNode(path, source) {
			fsType = types[p.Device] // a bind of it that was listed as it was asked for
		}
		all[i] = mnt.Info{
			ID: int(number(path, source, string(rune(depth[path])))), Dev: k.device(source), Root: "/", Point: path,
			Options: k.options(path, p.Opts), FSType: fsType, Source: source,
		}
	}
	return all, nil
}

// isNode reports whether the node of a device is bound at path, and not its file
// system.
func (k *overInterface) isNode(path, source string) bool {
	if num, err := k.Kernel.DeviceAt(source); err != nil || num == 0 {
		return false
	}
	return isFile(path)
}

// device is the number of a block device, or one that stands for this source alone.
func (k *overInterface) device(source string) uint64 {
	if filepath.IsAbs(source) {
		if num, err := k.Kernel.DeviceAt(source); err == nil && num != 0 {
			return num
		}
	}
	const noDevice = 1 << 63
	return noDevice | uint64(number(source))
}

// number is a stable number for some words.
func number(words ...string) uint32 {
	h := fnv.New32a()
	for _, w := range words {
		_, _ = h.Write([]byte(w + "\x00")) // never fails
	}
	return h.Sum32() & 0x7fffffff
}

// at lists the mounts at a path, the topmost last.
func (l infos) at(path string) infos {
	names := []string{filepath.Clean(path)}
	if real, err := canonical(names[0]); err == nil {
		names = append(names, real)
	}
	var at infos
	for _, i := range l {
		if slices.Contains(names, i.Point) {
			at = append(at, i)
		}
	}
	return at
}

// source is what is mounted at path, "" when nothing is.
func (l infos) source(path string) string {
	if at := l.at(path); len(at) > 0 {
		return at[len(at)-1].Source
	}
	return ""
}

// decode reads the escapes of /proc/mounts, which mount-utils leaves in.
func decode(name string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(name)
}
