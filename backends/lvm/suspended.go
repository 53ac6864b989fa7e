package lvm

import (
	"context"
	"strings"

	"github.com/csikit/csikit/backends"
)

// lvm suspends devices while it changes what is below them. One that is killed then
// leaves them so, and whoever writes to them waits for ever.

// unstick has lvm load again what its metadata says of the LVs whose devices are
// suspended, and lets them go on.
func (b *Backend) unstick(ctx context.Context, c *Class) error {
	stuck, err := b.stuck(c.VG)
	if len(stuck) == 0 || err != nil {
		return err
	}
	g, err := b.fetch(ctx, c.VG)
	if err != nil {
		return err
	}
	for _, v := range g.lvs {
		for _, uuid := range stuck {
			if !strings.HasPrefix(uuid, v.dmUUID()) {
				continue
			}
			b.log.Warn("what a killed lvm left suspended goes on", "lv", v.path())
			cmd := b.tool.cmd(c.VG, []string{"lvchange", "-qq", "--yes", "--refresh", v.path()})
			cmd.Idle = changeIdle
			if _, err := b.tool.run.Run(ctx, cmd); err != nil {
				return err
			}
			b.step("unstick:refreshed")
			break
		}
	}
	if stuck, err = b.stuck(c.VG); err != nil {
		return err
	}
	for _, uuid := range stuck {
		b.log.Error("a device stays suspended: dmsetup resume", "uuid", uuid)
	}
	return nil
}

// stuck are the UUIDs of the suspended devices of a VG.
func (b *Backend) stuck(vg string) ([]string, error) {
	b.mu.Lock()
	uuid := b.seen[vg]
	b.mu.Unlock()
	if uuid == "" {
		return nil, nil
	}
	return b.kernel.suspended("LVM-" + strings.ReplaceAll(uuid, "-", ""))
}

// afterFailure is called when a command that changes a VG has failed.
func (b *Backend) afterFailure(ctx context.Context, vg string) {
	for _, c := range b.groups() {
		if c.VG != vg {
			continue
		}
		if err := b.unstick(ctx, c); err != nil {
			b.log.Error("devices may be suspended", "vg", vg, "err", err)
		}
	}
}

// unstickAll is for the start.
func (b *Backend) unstickAll(ctx context.Context) {
	for _, c := range b.groups() {
		leave, err := b.turn(ctx, c)
		if err != nil {
			return
		}
		if _, err = b.look(ctx, c); err == nil {
			err = b.unstick(ctx, c)
		}
		leave()
		if err != nil {
			b.log.Error("devices may be suspended", "vg", c.VG, "err", err)
		}
		backends.Progress(ctx, "looked for suspended devices of "+c.VG)
	}
}
