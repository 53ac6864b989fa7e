package loopfile

import (
	"context"
	"fmt"
	"os"

	"github.com/csikit/csikit/backends"
)

// idle says ErrInUse when a loop device holds the image of a locked volume: its
// open file carries the lock that was taken before it was attached.
func (b *Backend) idle(_ context.Context, v *volume) error {
	img, err := v.openImg(os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { _ = img.Close() }() // nothing was written
	free, err := tryLock(img)
	if err != nil {
		return unavailable("flock "+v.path(imgFile), err)
	}
	if !free {
		return fmt.Errorf("%w: a loop device is attached to %s", backends.ErrInUse, v.path(imgFile))
	}
	return nil
}
