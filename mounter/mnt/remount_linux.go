package mnt

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// Remount changes the topmost mount at target as mount -o remount does: what the
// flags name, which are those of [ParseOptions], and nothing else. With bind only
// the mount is changed, not its file system; flags that are not of a mount are
// then refused with [backends.ErrInvalid]. Read-only for the whole file system is
// also read-only for this mount; where the two differ now, the flags must say ro
// or rw, or [backends.ErrPrecondition].
func Remount(target string, bind bool, flags []string) error {
	if err := remountFlags(target, bind, flags); err != nil {
		return fmt.Errorf("remount %s: %w", target, err)
	}
	return nil
}

func remountFlags(path string, bind bool, flags []string) error {
	asked, err := ParseOptions(flags)
	if err != nil {
		return err
	}
	p, err := cleanTarget(path)
	if err != nil {
		return err
	}
	fd, top, err := openTop(p)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	o := optionsOf(top)
	words, err := SplitOptions(flags)
	if err != nil {
		return err
	}
	for _, w := range words {
		if _, err := o.apply(w); err != nil {
			return err
		}
	}
	named := slices.Contains(words, "ro") || slices.Contains(words, "rw")
	if bind {
		if asked.Data != "" || asked.Super != 0 {
			return fmt.Errorf("%w: an option of the file system, and only the mount is changed", backends.ErrInvalid)
		}
		if !named {
			o.ReadOnly = slices.Contains(top.Options, "ro")
		}
		return classify(mount2("", procPath(fd), "", unix.MS_REMOUNT|unix.MS_BIND|o.ms(), ""))
	}
	if !named && slices.Contains(top.Options, "ro") != slices.Contains(top.Super, "ro") {
		return fmt.Errorf("%w: the mount and its file system differ in ro: say ro or rw", backends.ErrPrecondition)
	}
	return classify(mount2("", procPath(fd), "", unix.MS_REMOUNT|o.ms(), asked.Data))
}

// optionsOf reads an existing mount, without the file system's own options.
func optionsOf(i Info) Options {
	o := Options{Attr: attrOf(i) &^ AttrReadOnly, ReadOnly: i.ReadOnly()}
	for _, s := range superKeys {
		if slices.Contains(i.Super, s.key) {
			o.Super |= s.flag
		}
	}
	return o
}

// ms are the options as flags of mount(2).
func (o Options) ms() uintptr {
	ms := msOf(o.Attr) | uintptr(o.Super)
	if o.ReadOnly {
		ms |= unix.MS_RDONLY
	}
	return ms
}
