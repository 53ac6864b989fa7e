package mounter

import (
	"context"
	"slices"
	"strings"

	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// A reader is a volume whose access mode is read-only, or whose device is. It is not
// written to: no mkfs, no check, no growth; and no replay of its journal, which the
// kernel makes of a read-only mount too. On several nodes at once, or of a volume
// that somebody writes to elsewhere, that would destroy it. What lies in a journal
// that is not replayed is missing from what a reader sees, also metadata that the
// rest refers to, so that such a volume is refused; unless the CO's own mount flags
// say that it shall not be replayed.
//
// A volume that may be written to and is only mounted with "ro" is replayed and
// checked as any other.

// noReplay are the options that keep a kernel from writing at a read-only mount.
var noReplay = map[string]string{
	"ext3": "noload", "ext4": "noload", "xfs": "norecovery", "btrfs": "rescue=nologreplay",
}

// isReader reports whether the device must not be written to.
func (s *staging) isReader(d Device) (bool, error) {
	if !s.readOnly || s.req.Capability.Mode.ReadOnly() {
		return s.readOnly, nil
	}
	ro, err := d.ReadOnly()
	if err != nil {
		return false, unavailable("device %s: %w", d.Path(), err)
	}
	return ro, nil
}

// readAsIs accepts a file system that can be read as it is.
func (s *staging) readAsIs(ctx context.Context, d Device, c blockdev.Content, unfinished bool) error {
	if err := withoutOrphans(d, c); err != nil || s.saysNoReplay() {
		return err
	}
	replay, err := d.NeedsReplay(ctx, c)
	switch {
	case err != nil:
		return unavailable("journal of the %s on %s: %w", c.Type, d.Path(), err)
	case replay:
		return notAsIs(d, c, "was not unmounted in order, or is in use: its journal has to be replayed")
	case needsCheck(c) || unfinished:
		return notAsIs(d, c, "asks for a check")
	}
	if isExt(c.Type) && c.Type != "ext2" || c.Type == "xfs" { // the word for btrfs differs between kernels
		s.extra = append(s.extra, noReplay[c.Type])
	}
	return nil
}

// withoutOrphans refuses what the kernel would write to whatever the options say:
// an ext file system with files that were deleted while they were open, as a snapshot
// of a volume in use has, unless the device keeps it from that.
func withoutOrphans(d Device, c blockdev.Content) error {
	if !c.Orphans {
		return nil
	}
	ro, err := d.ReadOnly()
	if ro || err != nil {
		return unavailableIf("device "+d.Path(), err)
	}
	return refuse("the %s on %s has, or may have, files that were deleted while they were open: the kernel removes them at every mount, without a replay too, "+
		"and a volume that is used read-only is not written to. Stage it once where it may be written to, or make the device itself read-only", c.Type, d.Path())
}

func notAsIs(d Device, c blockdev.Content, why string) error {
	or := ""
	if o := noReplay[c.Type]; o != "" {
		or = ", or give it the mount flag " + o + " to read what is there"
	}
	return refuse("the %s on %s %s, and a volume that is used read-only is not written to. Stage it once where it may be written to%s",
		c.Type, d.Path(), why, or)
}

// saysNoReplay reports whether the CO's flags say it already.
func (s *staging) saysNoReplay() bool {
	words := []string{"noload", "norecovery", "nologreplay"}
	said, err := mnt.SplitOptions([]string{s.options.Data}) // a comma in quotes ends no word
	return err == nil && slices.ContainsFunc(said, func(o string) bool {
		return slices.Contains(words, o) || strings.HasPrefix(o, "rescue=") && strings.Contains(o, "nologreplay") || o == "rescue=all"
	})
}
