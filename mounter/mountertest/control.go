package mountertest

import (
	"maps"
	"slices"

	"github.com/csikit/csikit/mounter/mnt"
)

// Fail makes the next n calls of an operation fail; a negative n all of them.
// Operations have the names of the methods of mounter.Kernel and mounter.Device.
func (k *Kernel) Fail(operation string, n int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.faults[operation] = fault{err, n}
}

// call notes an operation that changes something, and fails it if it should.
func (k *Kernel) call(operation string, note string) error {
	if note != "" {
		k.log = append(k.log, note)
	}
	f, ok := k.faults[operation]
	if !ok || f.left == 0 {
		return nil
	}
	f.left--
	k.faults[operation] = f
	return f.err
}

// OnChange calls f after each change to the machine, with its name as in
// [Kernel.Fail], and in the middle of an mkfs as "half of Mkfs". A panic in f is a
// driver that dies at this point. f must not call the Kernel.
func (k *Kernel) OnChange(f func(operation string)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.onChange = f
}

func (k *Kernel) changed(operation string) {
	if k.onChange != nil {
		k.onChange(operation)
	}
}

// Log is what was done to the machine so far: "mkfs.ext4 /dev/a", "bind /x /y".
func (k *Kernel) Log() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.log)
}

// ClearLog forgets it.
func (k *Kernel) ClearLog() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.log = nil
}

// Mounts is the mount table, oldest first.
func (k *Kernel) Mounts() []mnt.Info {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []mnt.Info
	for _, m := range k.mounts {
		list = append(list, m.Info)
	}
	return list
}

// Reboot unmounts everything and makes every disk another instance.
func (k *Kernel) Reboot() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.boot++
	k.mounts = nil
	for _, d := range maps.Clone(k.devices) {
		if d.on != nil {
			k.closeMapping(d)
		}
	}
	for _, d := range k.devices {
		k.seq++
		d.seq = k.seq
		d.readOnly = false
	}
}

// MountForeign mounts a file system that has nothing to do with the engine.
func (k *Kernel) MountForeign(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lastDev++
	k.add(mount{Info: mnt.Info{Dev: k.lastDev, Root: "/", Point: path, FSType: "tmpfs", Source: "foreign"}, rem: "foreign"}, false)
}

// UnmountForeign takes the topmost mount off path, as an administrator would.
func (k *Kernel) UnmountForeign(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := k.top(path); i >= 0 {
		k.mounts = slices.Delete(k.mounts, i, i+1)
	}
}

// ForbidOnlineExt4 takes the right to grow a mounted ext file system away.
func (k *Kernel) ForbidOnlineExt4() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.noOnlineExt4 = true
}

// Group is the group that a mounted directory was given to; 0: none.
func (k *Kernel) Group(path string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.groups[path]
}

// TurnReadOnly makes the topmost mount at path read-only, as a file system does
// that found errors.
func (k *Kernel) TurnReadOnly(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := k.top(path); i >= 0 {
		k.mounts[i].Options = []string{"ro", "relatime"}
	}
}
