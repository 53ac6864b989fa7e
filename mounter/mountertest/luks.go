package mountertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

// luksOffset is what a header takes.
const luksOffset = 16 << 20

// luks is the encryption of a Disk.
type luks struct {
	uuid, mark string
	keys       map[int]string
	inside     blockdev.Content // while it is closed
	name       string           // of the mapping; "": closed
}

// luksContent is how an encrypted disk reads.
func luksContent(uuid string) blockdev.Content {
	return blockdev.Content{State: blockdev.Foreign, Type: "crypto_LUKS", UUID: uuid}
}

// Encrypt makes the disk one that somebody encrypted, with something inside.
func (d *Disk) Encrypt(key string, inside blockdev.Content) {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	uuid := fmt.Sprintf("00000000-0000-0000-0000-%012d", d.num)
	d.luks = &luks{uuid: uuid, keys: map[int]string{0: key}, inside: inside}
	d.content = luksContent(uuid)
}

// CopyOf makes the content of the disk that of another one, as a restored
// snapshot has it.
func (d *Disk) CopyOf(o *Disk) {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	d.content, d.luks = o.content, nil
	if o.luks == nil {
		return
	}
	c := *o.luks
	c.keys, c.name = maps.Clone(c.keys), ""
	if o.luks.name != "" {
		c.inside = d.k.devices[mapper(o.luks.name)].content
	}
	d.luks = &c
}

// Keys are those that open the encrypted disk, and Mark is what its header
// remembers; none and "" when it is not encrypted.
func (d *Disk) Keys() []string {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	if d.luks == nil {
		return nil
	}
	return slices.Sorted(maps.Values(d.luks.keys))
}

// Mark is one of mounter's, or "".
func (d *Disk) Mark() string {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	if d.luks == nil {
		return ""
	}
	return d.luks.mark
}

// Inside is the open mapping of an encrypted disk; nil when it is closed.
func (d *Disk) Inside() *Disk {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	if d.luks == nil || d.luks.name == "" {
		return nil
	}
	return d.k.devices[mapper(d.luks.name)]
}

func mapper(name string) string { return "/dev/mapper/" + name }

// LUKSHeader implements mounter.LUKS.
func (k *Kernel) LUKSHeader(_ context.Context, dev mounter.Device) (mounter.LUKSHeader, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("LUKSHeader", ""); err != nil {
		return mounter.LUKSHeader{}, err
	}
	l := k.devices[dev.Path()].luks
	if l == nil {
		return mounter.LUKSHeader{}, nil
	}
	return mounter.LUKSHeader{
		Valid: true, Version: 2, UUID: l.uuid, Mark: l.mark, Slots: slices.Sorted(maps.Keys(l.keys)), Offset: luksOffset, Sector: 512,
	}, nil
}

// LUKSFormat implements mounter.LUKS. A failure leaves data without a signature;
// one that is cut short also a header without a key.
func (k *Kernel) LUKSFormat(_ context.Context, dev mounter.Device, e backends.Encryption) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[dev.Path()]
	d.luks, d.content = nil, blockdev.Content{State: blockdev.Unknown, Offset: 32 << 10}
	err := k.call("LUKSFormat", "luksFormat "+d.path)
	k.changed("half of LUKSFormat")
	if err != nil {
		return err
	}
	k.seq++
	uuid := fmt.Sprintf("00000000-0000-0000-0000-%012d", k.seq)
	d.content = luksContent(uuid)
	d.luks = &luks{uuid: uuid, mark: mounter.LUKSNew, keys: map[int]string{}, inside: blockdev.Content{State: blockdev.Unknown}}
	k.changed("LUKSFormat without a key")
	d.luks.keys[0] = e.Key.Reveal()
	k.changed("LUKSFormat")
	return nil
}

// LUKSMark implements mounter.LUKS.
func (k *Kernel) LUKSMark(_ context.Context, dev mounter.Device, mark string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("LUKSMark", "mark "+mark+" "+dev.Path()); err != nil {
		return err
	}
	k.devices[dev.Path()].luks.mark = mark
	k.changed("LUKSMark")
	return nil
}

func (l *luks) slotOf(key backends.Secret) (int, error) {
	for _, slot := range slices.Sorted(maps.Keys(l.keys)) {
		if l.keys[slot] == key.Reveal() {
			return slot, nil
		}
	}
	return 0, mounter.ErrWrongKey
}

// LUKSOpen implements mounter.LUKS.
func (k *Kernel) LUKSOpen(_ context.Context, r mounter.LUKSOpenRequest) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[r.Device.Path()]
	note := ""
	if !r.Test {
		note = "luksOpen " + d.path + " " + r.Name
	}
	if err := k.call("LUKSOpen", note); err != nil {
		return 0, err
	}
	slot, err := d.luks.slotOf(r.Key)
	if err != nil || r.Test {
		return slot, err
	}
	if k.devices[mapper(r.Name)] != nil {
		return 0, errors.New("device " + r.Name + " already exists")
	}
	in := k.addDisk(mapper(r.Name), d.size-luksOffset, backends.Identity{
		DMUUID: "CRYPT-LUKS2-" + strings.ReplaceAll(d.luks.uuid, "-", "") + "-" + r.Name,
	})
	in.content, in.readOnly, in.on = d.luks.inside, r.ReadOnly, d
	d.luks.name = r.Name
	k.changed("LUKSOpen")
	return slot, nil
}

// LUKSAddKey implements mounter.LUKS.
func (k *Kernel) LUKSAddKey(_ context.Context, dev mounter.Device, e backends.Encryption) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("LUKSAddKey", "luksAddKey "+dev.Path()); err != nil {
		return err
	}
	l := k.devices[dev.Path()].luks
	if _, err := l.slotOf(e.PreviousKey); err != nil {
		return err
	}
	slot := 0
	for l.keys[slot] != "" {
		slot++
	}
	l.keys[slot] = e.Key.Reveal()
	k.changed("LUKSAddKey")
	return nil
}

// LUKSRemoveKey implements mounter.LUKS.
func (k *Kernel) LUKSRemoveKey(_ context.Context, dev mounter.Device, slot int, key backends.Secret) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("LUKSRemoveKey", "luksKillSlot "+dev.Path()); err != nil {
		return err
	}
	l := k.devices[dev.Path()].luks
	if other, err := l.slotOf(key); err != nil || other == slot {
		return errors.Join(err, errors.New("the key does not open another slot"))
	}
	delete(l.keys, slot)
	k.changed("LUKSRemoveKey")
	return nil
}

// LUKSResize implements mounter.LUKS.
func (k *Kernel) LUKSResize(_ context.Context, name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("LUKSResize", "luksResize "+name); err != nil {
		return err
	}
	in := k.devices[mapper(name)]
	in.size = in.on.size - luksOffset
	k.changed("LUKSResize")
	return nil
}

// LUKSClose implements mounter.LUKS.
func (k *Kernel) LUKSClose(_ context.Context, name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("LUKSClose", "luksClose "+name); err != nil {
		return err
	}
	in := k.devices[mapper(name)]
	if in == nil {
		return nil
	}
	if slices.ContainsFunc(k.mounts, func(m mount) bool { return m.dev == in && m.FSType != "devtmpfs" }) {
		return errors.New("device " + name + " is still in use")
	}
	k.closeMapping(in)
	k.changed("LUKSClose")
	return nil
}

// closeMapping puts what is inside back below.
func (k *Kernel) closeMapping(in *Disk) {
	in.on.luks.inside, in.on.luks.name = in.content, ""
	delete(k.devices, in.path)
}

// LUKSMappings implements mounter.LUKS.
func (k *Kernel) LUKSMappings(prefix string) ([]mounter.LUKSMapping, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("LUKSMappings", ""); err != nil {
		return nil, err
	}
	var all []mounter.LUKSMapping
	for _, path := range slices.Sorted(maps.Keys(k.devices)) {
		d := k.devices[path]
		if name, ok := strings.CutPrefix(path, "/dev/mapper/"); ok && d.on != nil && strings.HasPrefix(name, prefix) {
			all = append(all, mounter.LUKSMapping{Name: name, Path: path, UUID: d.identity.DMUUID, Num: d.num, On: []uint64{d.on.num}})
		}
	}
	return all, nil
}

// Path is what the disk is opened by.
func (d *Disk) Path() string { return d.path }
