package mnt

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/internal/mountapi"
)

// Mount mounts the file system on source at target. Source may be any path that
// the kernel understands, /proc/self/fd/N too. When it fails, the error holds
// what the kernel said about it as far as the file system uses the mount
// context's log, and else points to the kernel's own. An option that the
// kernel refuses is [backends.ErrInvalid], a type that it does not know
// [backends.ErrPrecondition]. On failure nothing is left mounted.
func Mount(source, fstype, target string, o Options) error {
	if err := mount(source, fstype, target, o); err != nil {
		return fmt.Errorf("mount %s (%s) on %s: %w", source, fstype, target, withoutSELinux(o, err))
	}
	return nil
}

func mount(source, fstype, path string, o Options) error {
	if err := o.check(); err != nil {
		return err
	}
	if fstype == "" || strings.IndexByte(source+fstype, 0) >= 0 {
		return fmt.Errorf("%w: source or file system type", backends.ErrInvalid)
	}
	t, err := openTarget(path)
	if err != nil {
		return err
	}
	defer t.close()
	if o.Owners != nil {
		return classify(mountMapped(source, fstype, t, o))
	}
	if !mountapi.Has(mountapi.Context) || needsOldMount(fstype, o) {
		return classify(mountOld(source, fstype, t, o))
	}
	err = mountContext(source, fstype, t, o)
	var p *paramError
	if !missing(err) && !errors.As(err, &p) {
		return classify(err)
	}
	// A file system of the older kind takes some options in another form only.
	old := mountOld(source, fstype, t, o)
	if old == nil || missing(err) {
		return classify(old)
	}
	if errors.Is(old, unix.EINVAL) { // it refuses the option too
		return classify(err)
	}
	// Only the second error's kind counts.
	return classify(fmt.Errorf("%s; then by mount(2): %w", err.Error(), old))
}

// needsOldMount says what cannot be cut into keys and values: a subtype
// (fuse.sshfs) and the escapes that some file systems decode themselves.
func needsOldMount(fstype string, o Options) bool {
	return strings.Contains(fstype, ".") || strings.Contains(o.Data, `\`)
}

// classify adds the kind to an error of the kernel.
func classify(err error) error {
	var p *paramError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &p):
		return fmt.Errorf("%w: %w", backends.ErrInvalid, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", backends.ErrInUse, err)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: %w", backends.ErrPrecondition, err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: no such file system type in this kernel, or no device: %w", backends.ErrPrecondition, err)
	}
	return err
}

// paramError is the refusal of one option.
type paramError struct {
	key string
	err error
}

func (e *paramError) Error() string { return fmt.Sprintf("option %q: %v", e.key, e.err) }
func (e *paramError) Unwrap() error { return e.err }

// mountContext mounts by a mount context, which can say why it failed.
func mountContext(source, fstype string, t *target, o Options) error {
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer closeFD(fd)
	if err := configure(fd, source, o); err != nil {
		return said(fd, o, err)
	}
	err = again(func() error { return unix.FsconfigCreate(fd) })
	if err != nil {
		return said(fd, o, os.NewSyscallError("fsconfig", err))
	}
	attr := o.Attr
	if o.ReadOnly {
		attr |= AttrReadOnly
	}
	syscall.ForkLock.RLock() // as in attachTree
	defer syscall.ForkLock.RUnlock()
	tree, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, int(attr))
	if err != nil {
		return said(fd, o, os.NewSyscallError("fsmount", err))
	}
	defer closeFD(tree)
	if o.userns != nil {
		if err := mapOwners(tree, o.userns); err != nil {
			return err
		}
	}
	if err := t.accepts(fileType(tree)); err != nil {
		return err
	}
	return t.attach(tree)
}

// superKeys are the Super flags as fsconfig takes them. It has none for silent.
var superKeys = []struct {
	flag uint64
	key  string
}{
	{SuperSync, "sync"},
	{SuperMand, "mand"},
	{SuperDirSync, "dirsync"},
	{SuperLazyTime, "lazytime"},
}

func configure(fd int, source string, o Options) error {
	if source != "" {
		if err := unix.FsconfigSetString(fd, "source", source); err != nil {
			return os.NewSyscallError("fsconfig source", err)
		}
	}
	words, err := split(o.Data)
	if err != nil {
		return err
	}
	if o.ReadOnly {
		words = append(words, "ro")
	}
	for _, s := range superKeys {
		if o.Super&s.flag != 0 {
			words = append(words, s.key)
		}
	}
	for _, w := range words {
		key, value, valued := strings.Cut(w, "=")
		if valued {
			err = unix.FsconfigSetString(fd, key, unquote(value))
		} else {
			err = unix.FsconfigSetFlag(fd, key)
		}
		if err != nil {
			return &paramError{key, os.NewSyscallError("fsconfig", err)}
		}
	}
	return nil
}

// said adds the messages of the mount context to err.
func said(fd int, o Options, err error) error {
	var log []string
	buf := make([]byte, 8<<10)
	for range 16 { // the kernel keeps 8
		n, readErr := unix.Read(fd, buf)
		if readErr != nil || n == 0 { // ENODATA: that was all
			break
		}
		log = append(log, strings.TrimSpace(untagged(string(buf[:n]))))
	}
	if len(log) == 0 {
		return hint(err)
	}
	return fmt.Errorf("%w; kernel: %s", err, redact(strings.Join(log, "; "), o.Data))
}

// untagged takes the letter of its weight off a message: "e ext4: bad value".
func untagged(message string) string {
	if len(message) > 2 && message[1] == ' ' && strings.IndexByte("ewi", message[0]) >= 0 {
		return message[2:]
	}
	return message
}

// hint says where the reason is when the kernel gave it to its own log only: that
// of a bad superblock, and with mount(2) every one.
func hint(err error) error {
	for _, e := range []syscall.Errno{unix.EINVAL, unix.EUCLEAN, unix.EIO, unix.EBADMSG} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w; the kernel's log (dmesg) may say why", err)
		}
	}
	return err
}

// mountOld mounts with mount(2).
func mountOld(source, fstype string, t *target, o Options) error {
	return hint(mount2(source, procPath(t.fd), fstype, o.ms(), o.Data))
}
