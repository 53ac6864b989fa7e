package loopfile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
)

// renew gives the file system of a new copy a UUID of its own, so that it can be
// mounted beside what it was copied from: xfs and btrfs refuse, or confuse, two
// with one UUID.
//
// It is done here, when the copy is made, and not by the node's engine at its
// first stage: here the copy is a file in .tmp that nobody has seen, so that one
// that is cut short is thrown away with the half-done UUID, and there is no
// state to keep of how far it came. Nor could the source be meant by mistake: no
// device with the old UUID ever shows up for it, save for the moment in which
// the kernel replays an xfs log, off every path. What it costs is that the
// process that makes volumes needs the tools, and for that log the right to
// mount; both halves of this driver are on the pool's node anyway.
//
// A volume that was given away as a block device is left as it is: what is on it
// is its user's.
func (b *Backend) renew(ctx context.Context, img *os.File, m *meta) error {
	if err := sameEncryption(img, m); err != nil {
		return err
	}
	if m.format() != backends.FormatDone || m.encrypted() {
		return nil // nobody here has the key; the node mounts both
	}
	how := renewerOf(m.FSType)
	if how.renew == nil {
		return nil
	}
	if err := img.Sync(); err != nil {
		return err
	}
	was, err := how.uuid(img)
	if err != nil {
		return err
	}
	// By this process's descriptor: whatever the pool's path means by then.
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), img.Fd())
	if err := how.renew(b, ctx, img, path); err != nil {
		return fmt.Errorf("new UUID for a copy of %s: %w", m.FSType, err)
	}
	// xfs_db exits with 0 whatever it did.
	now, err := how.uuid(img)
	if err == nil && now == was {
		err = errors.New("it kept the old one")
	}
	if err != nil {
		return fmt.Errorf("new UUID for a copy of %s: %w", m.FSType, err)
	}
	return nil
}

// renewer knows one kind of file system: where magic and UUID are, and what
// changes the UUID.
type renewer struct {
	at, uuidAt int64
	magic      string
	renew      func(b *Backend, ctx context.Context, img *os.File, path string) error
}

func renewerOf(fsType string) renewer {
	switch fsType {
	case "ext4":
		return renewer{0x438, 0x468, "\x53\xef", (*Backend).renewExt}
	case "xfs":
		return renewer{0, 0x20, "XFSB", (*Backend).renewXFS}
	case "btrfs":
		return renewer{0x10040, 0x10020, "_BHRfS_M", (*Backend).renewBtrfs}
	}
	return renewer{}
}

func (r renewer) uuid(img *os.File) (uuid [16]byte, err error) {
	magic := make([]byte, len(r.magic))
	if _, err := img.ReadAt(magic, r.at); err != nil {
		return uuid, err
	}
	if string(magic) != r.magic {
		return uuid, fmt.Errorf("%w: no such file system is on it", backends.ErrPrecondition)
	}
	_, err = img.ReadAt(uuid[:], r.uuidAt)
	return uuid, err
}

func (b *Backend) tool(ctx context.Context, path string, args ...string) error {
	_, err := b.o.Command.Run(ctx, command.Cmd{Path: path, Args: args})
	return err
}

// extRecover is the bit of ext4's s_feature_incompat, at extIncompat, for a
// journal to replay.
const (
	extIncompat = 0x460
	extRecover  = 0x4
)

// renewExt replays the journal and changes the UUID. Where metadata checksums
// begin with the UUID, tune2fs writes them anew, and may want the file system
// checked first.
func (b *Backend) renewExt(ctx context.Context, img *os.File, path string) error {
	flags := make([]byte, 4)
	if _, err := img.ReadAt(flags, extIncompat); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(flags)&extRecover != 0 {
		if err := b.fsck(ctx, "-p", "-E", "journal_only", path); err != nil {
			return err
		}
	}
	first := b.tool(ctx, "tune2fs", "-U", "random", path)
	if first == nil {
		return nil
	}
	if err := b.fsck(ctx, "-f", "-p", path); err != nil {
		return errors.Join(first, err)
	}
	return b.tool(ctx, "tune2fs", "-U", "random", path)
}

// fsck runs e2fsck, for which 1 means that it mended something.
func (b *Backend) fsck(ctx context.Context, args ...string) error {
	err := b.tool(ctx, "e2fsck", args...)
	var exit *command.ExitError
	if errors.As(err, &exit) && exit.Code == 1 {
		return nil
	}
	return err
}

// renewXFS changes the UUID, which needs an empty log. A snapshot's is empty only
// when the volume was not mounted: a frozen xfs keeps something in it.
func (b *Backend) renewXFS(ctx context.Context, img *os.File, path string) error {
	r := renewerOf("xfs")
	was, err := r.uuid(img)
	if err != nil {
		return err
	}
	change := func() error {
		return b.tool(ctx, "xfs_db", "-x", "-p", "xfs_admin", "-f", "-c", "uuid generate", path)
	}
	if err := change(); err != nil {
		return err
	}
	if now, err := r.uuid(img); err != nil || now != was {
		return err
	}
	if err := replayXFS(ctx, img, path); err != nil {
		return fmt.Errorf("replay its log: %w", err)
	}
	return change()
}

// btrfsLogRoot is the offset of log_root in the super block at 64 KiB.
const btrfsLogRoot = 0x10000 + 96

// renewBtrfs changes the UUID in all blocks. A log tree is not among them, and
// the kernel may not see this copy before it has another UUID: it would take it
// for the original.
func (b *Backend) renewBtrfs(ctx context.Context, img *os.File, path string) error {
	root := make([]byte, 8)
	if _, err := img.ReadAt(root, btrfsLogRoot); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if binary.LittleEndian.Uint64(root) != 0 {
		return fmt.Errorf("%w: it has a log to be replayed: mount and unmount the source once, and copy it then", backends.ErrPrecondition)
	}
	return b.tool(ctx, "btrfstune", "-f", "-u", path)
}
