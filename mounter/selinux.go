package mounter

import (
	"fmt"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// checkLabel refuses to publish a volume that is staged with another SELinux context
// than is asked for: the label is the file system's, and a bind does not change it.
func (p *publishing) checkLabel(m mnt.Info) error {
	flags := p.req.Capability.Flags
	want := mnt.Context(flags.Reveal())
	if want == "" || p.stage.Flags.matches(flags) {
		return nil
	}
	if got := mnt.Context(m.Super); got != want {
		return fmt.Errorf("%w: it is staged with SELinux context %q, and %q was asked for", backends.ErrIncompatible, got, want)
	}
	return nil
}
