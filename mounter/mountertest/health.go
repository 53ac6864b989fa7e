package mountertest

import (
	"context"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// SetHealth says what is wrong with file systems that are mounted at path from now on,
// until it is called again without findings.
func (k *Kernel) SetHealth(path string, found ...backends.Health) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.health[path] = found
}

// ExamineFS implements mounter.Examiner.
func (k *Kernel) ExamineFS(_ context.Context, _ mounter.Device, m mnt.Info) ([]backends.Health, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.health[m.Point], k.call("ExamineFS", "")
}

// ReadEnds implements mounter.Examiner.
func (k *Kernel) ReadEnds(context.Context, mounter.Device) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.call("ReadEnds", "")
}

var _ mounter.Examiner = (*Kernel)(nil)
