package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// inode is a file. Subvolumes of btrfs count theirs from the same number on, and are no
// mount points.
type inode struct{ dev, ino uint64 }

// linked is a file in links, copied by the first of its names that is still there.
type linked struct {
	mu   sync.Mutex
	name string // in links
	made bool
	info Info
}

// copyLinked copies a file once, into links, and links it from there to its names.
func (c *copier) copyLinked(ctx context.Context, t task) (made bool, err error) {
	l := c.linkedOf(t.info)
	if made, err := c.firstName(ctx, t, l); err != nil || !made {
		return false, err // the next name copies it
	}
	if l.info.Mtime != t.info.Mtime || l.info.Size != t.info.Size || l.info.Mode != t.info.Mode {
		// The inode is another file by now, or was written to.
		return c.copyOne(ctx, t, t.p.dst, t.name)
	}
	if err := c.clearName(ctx, t.p.dst, t.name); err != nil {
		return false, err
	}
	err = again(func() error { return unix.Linkat(int(c.links.Fd()), l.name, int(t.p.dst.Fd()), t.name, 0) })
	if err != nil && (t.info.Nlink == 1 || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP)) {
		return c.copyOne(ctx, t, t.p.dst, t.name) // no more names, or no file has two here
	}
	if err != nil {
		return false, &os.LinkError{Op: "link", Old: l.name, New: t.p.dst.Name() + "/" + t.name, Err: err}
	}
	return true, nil
}

// linkedOf finds the file in the table. Its name in links says which one it is, and when
// it was changed last: one of the same size and time may be another, or have another
// access list.
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

// firstName copies the file into links, unless another name has. false: this name is not
// the file's any more.
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
