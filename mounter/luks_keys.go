package mounter

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/csikit/csikit/backends"
)

// withKey opens the mapping with the volume's key; of one that is open already
// the key is only tried, so that nobody gets in without. A previous key, where it
// is the one that opens, is replaced.
func (s *staging) withKey(ctx context.Context, d Device, open bool, name string) error {
	enc := s.src.Device.Encryption
	try := func(key backends.Secret) (int, error) {
		return s.tryKey(ctx, LUKSOpenRequest{
			Device: d, Name: name, Key: key, ReadOnly: s.luksReadOnly(), Discard: enc.Discard, Test: open,
		})
	}
	if err := s.step(ctx, "luksOpen"); err != nil {
		return err
	}
	slot, err := try(enc.Key)
	rotating := enc.PreviousKey.Reveal() != "" && enc.PreviousKey.Reveal() != enc.Key.Reveal()
	switch {
	case err == nil && rotating:
		return s.dropPrevious(ctx, d, slot)
	case err == nil:
		return nil
	case !errors.Is(err, ErrWrongKey):
		return unavailable("open %s: %w", d.Path(), err)
	case !rotating:
		return fmt.Errorf("%w: the key that was given does not open the encrypted device %s; nothing was changed", backends.ErrUnauthenticated, d.Path())
	}
	old, err := try(enc.PreviousKey)
	switch {
	case errors.Is(err, ErrWrongKey):
		return fmt.Errorf("%w: neither the key nor the previous key that were given opens the encrypted device %s; nothing was changed", backends.ErrUnauthenticated, d.Path())
	case err != nil:
		return unavailable("open %s: %w", d.Path(), err)
	}
	return s.rotate(ctx, d, old)
}

// tryKey is one of few at a time: what makes a key slow to guess is memory.
func (s *staging) tryKey(ctx context.Context, r LUKSOpenRequest) (slot int, err error) {
	err = s.tools.do(ctx, "luksOpen", func() (err error) {
		slot, err = s.kernel.LUKSOpen(ctx, r)
		return err
	})
	return slot, err
}

// rotate puts the key in the place of the previous one, which opens slot old. At
// each point in between at least one of the two opens the device; whoever comes
// after a crash finds both, and drops the old one.
func (s *staging) rotate(ctx context.Context, d Device, old int) error {
	if s.luksReadOnly() {
		s.log.WarnContext(ctx, "opened with the previous key; used read-only, so that it is not replaced", "volume", s.req.ID, "path", s.path)
		return nil
	}
	enc := s.src.Device.Encryption
	if err := s.step(ctx, "luksAddKey"); err != nil {
		return err
	}
	if err := s.tools.do(ctx, "luksAddKey", func() error { return s.kernel.LUKSAddKey(ctx, d, *enc) }); err != nil {
		return unavailable("add the key to %s: %w", d.Path(), err)
	}
	if err := s.step(ctx, "try key"); err != nil {
		return err
	}
	slot, err := s.tryKey(ctx, LUKSOpenRequest{Device: d, Key: enc.Key, Test: true})
	if err == nil && slot == old {
		err = fmt.Errorf("it opens the slot of the previous key, %d", old)
	}
	if err != nil {
		return unavailable("the key that was added to %s: %w", d.Path(), err)
	}
	return s.dropPrevious(ctx, d, slot)
}

// maxSlots is how many keys a LUKS2 header holds.
const maxSlots = 32

// dropPrevious removes the previous key from wherever it is, and looks. Slot keep
// is the one that the key itself has just opened: there always is another one
// than the slot that goes.
func (s *staging) dropPrevious(ctx context.Context, d Device, keep int) error {
	if s.luksReadOnly() {
		return nil
	}
	enc := s.src.Device.Encryption
	for range maxSlots {
		h, err := s.readHeader(ctx, d)
		if err != nil {
			return err
		}
		if len(h.Slots) < 2 || !slices.Contains(h.Slots, keep) {
			return nil // nothing to drop, or nothing to be sure of
		}
		slot, err := s.tryKey(ctx, LUKSOpenRequest{Device: d, Key: enc.PreviousKey, Test: true})
		switch {
		case errors.Is(err, ErrWrongKey):
			return nil
		case err == nil && slot == keep:
			err = fmt.Errorf("both keys open slot %d", slot)
		}
		if err != nil {
			return unavailable("the previous key of %s: %w", d.Path(), err)
		}
		if err := s.step(ctx, "luksKillSlot"); err != nil {
			return err
		}
		if err := s.kernel.LUKSRemoveKey(ctx, d, slot, enc.Key); err != nil {
			return unavailable("remove the previous key from %s: %w", d.Path(), err)
		}
	}
	return unavailable("the previous key still opens %s", d.Path())
}
