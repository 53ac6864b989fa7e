package tree

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// inode is a file. Subvolumes of btrfs count theirs from the same number on, and are no
// mount points.
type inode struct{ dev, ino uint64 }

// linked is a file of several names, copied by the first of them that is still there.
type linked struct {
	mu   sync.Mutex
	name string // in links
	made bool
	info Info
}

// copyLinked copies a file of several names once, into links, and links it from
// there.
func (c *copier) copyLinked(ctx context.Context, t task) error {
	l := c.linkedOf(t.info)
	made, err := c.firstName(ctx, t, l)
	if err != nil || !made {
		return err // the next name copies it
	}
	if l.info.Mtime != t.info.Mtime || l.info.Size != t.info.Size || l.info.Mode != t.info.Mode {
		// The inode is another file by now, or was written to.
		_, err := c.copyOne(ctx, t, t.p.dst, t.name)
		return err
	}
	if err := c.clearName(ctx, t.p.dst, t.name); err != nil {
		return err
	}
	err = again(func() error { return unix.Linkat(int(c.links.Fd()), l.name, int(t.p.dst.Fd()), t.name, 0) })
	if err != nil {
		return &os.LinkError{Op: "link", Old: l.name, New: t.p.dst.Name() + "/" + t.name, Err: err}
	}
	return nil
}

// linkedOf finds the file in the table. Its name in links says when it was changed last:
// links to it change the times of the copy, which whole cannot go by.
func (c *copier) linkedOf(i Info) *linked {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := inode{i.Dev, i.Ino}
	l := c.linked[key]
	if l == nil {
		l = &linked{name: fmt.Sprintf("%d.%d", i.Ino, i.Changed().UnixNano())}
		if i.Dev != c.dev { // a subvolume
			l.name += "." + strconv.FormatUint(i.Dev, 10)
		}
		c.linked[key] = l
	}
	return l
}

// firstName copies the file into links, unless another name has. false: this name was
// removed meanwhile.
func (c *copier) firstName(ctx context.Context, t task, l *linked) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made {
		return true, nil
	}
	made, err := c.copyOne(ctx, t, c.links, l.name)
	if err == nil && made {
		l.made, l.info = true, t.info
	}
	return l.made, err
}
