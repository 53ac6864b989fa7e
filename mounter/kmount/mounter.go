package kmount

import (
	"context"
	"fmt"
	"log/slog"

	"k8s.io/mount-utils"

	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// Options of a [Mounter].
type Options struct {
	Logger *slog.Logger // nil: slog.Default()
	// Command runs the helpers (mount.nfs); nil: an own one.
	Command *command.Runner
	// Same makes a Mount of what is the topmost mount at the target already, with
	// the same read-only, succeed without stacking another one on it: for drivers
	// that do not look before they mount.
	Same bool
	// Kernel is what is mounted on; nil: this machine's. Only device mounts and
	// helpers go through it; the rest are calls of mounter/mnt.
	Kernel mounter.Kernel
}

// Mounter is a mount.Interface without processes: see the package for what differs
// from mount.Mounter. It is safe for concurrent use.
type Mounter struct {
	log    *slog.Logger
	kernel mounter.Kernel
	same   bool
}

var _ mount.MounterForceUnmounter = (*Mounter)(nil)

// New makes a Mounter; nil options are the defaults. On another system than Linux
// it is backends.ErrUnsupported.
func New(o *Options) (*Mounter, error) {
	if o == nil {
		o = &Options{}
	}
	m := &Mounter{log: o.Logger, kernel: o.Kernel, same: o.Same}
	if m.log == nil {
		m.log = slog.Default()
	}
	if m.kernel != nil {
		return m, nil
	}
	run := o.Command
	if run == nil {
		run = command.New(&command.Options{Logger: m.log})
	}
	var err error
	if m.kernel, err = mounter.HostKernel(run); err != nil {
		return nil, fmt.Errorf("kmount: %w", err)
	}
	return m, nil
}

// Mount mounts source at target. The options are words of mount(8), "bind" and
// "remount" among them.
func (m *Mounter) Mount(source, target, fstype string, options []string) error {
	return m.mountAll(source, target, fstype, options, nil, nil)
}

// MountSensitive is Mount with options that must not be seen.
func (m *Mounter) MountSensitive(source, target, fstype string, options, sensitiveOptions []string) error {
	return m.mountAll(source, target, fstype, options, sensitiveOptions, nil)
}

// MountSensitiveWithoutSystemd is MountSensitive: there is no systemd here.
func (m *Mounter) MountSensitiveWithoutSystemd(source, target, fstype string, options, sensitiveOptions []string) error {
	return m.mountAll(source, target, fstype, options, sensitiveOptions, nil)
}

// MountSensitiveWithoutSystemdWithMountFlags takes flags of the command mount(8),
// too. Those that say how it works and not what it does are left out
// (--no-canonicalize, --verbose, --no-mtab), --bind and the read-only ones are
// followed, others refused.
func (m *Mounter) MountSensitiveWithoutSystemdWithMountFlags(source, target, fstype string, options, sensitiveOptions, mountFlags []string) error {
	return m.mountAll(source, target, fstype, options, sensitiveOptions, mountFlags)
}

func (m *Mounter) mountAll(source, target, fstype string, options, sensitive, flags []string) error {
	err := m.mount(source, target, fstype, options, sensitive, flags)
	if err != nil {
		return scrub(fmt.Errorf("kmount: mount %s at %s: %w", source, target, err), sensitive)
	}
	return nil
}

func (m *Mounter) mount(source, target, fstype string, options, sensitive, flags []string) error {
	w, err := parseWords(options, sensitive, flags)
	if err != nil {
		return err
	}
	path, err := follow(target)
	if err != nil {
		return err
	}
	switch {
	case w.remount:
		return m.remount(path, w)
	case w.bind:
		return m.bind(source, path, w)
	}
	if fstype == "" || fstype == "auto" {
		if fstype, err = m.typeOf(source); err != nil {
			return err
		}
	}
	req := mounter.MountRequest{Source: source, FSType: fstype, Target: path, Options: w.words}
	if helped, err := w.hide(m.hasHelper(fstype), fstype, &req); err != nil {
		return err
	} else if !helped {
		req.Options = append(req.Options, w.sensitive...)
	}
	if is, err := m.there(path, source, fstype, req.Options); is || err != nil {
		return err
	}
	return m.kernel.Mount(context.Background(), req)
}

// bind binds source, and logs what has no effect on a bind.
func (m *Mounter) bind(source, target string, w *words) error {
	src, err := follow(source)
	if err != nil {
		return err
	}
	o, err := w.attributes(m.log, target)
	if err != nil {
		return err
	}
	if is, err := m.bound(src, target, o); is || err != nil {
		return err
	}
	return mnt.Bind(src, target, o)
}

// remount changes the mount at target; with bind, that alone and not its file
// system.
func (m *Mounter) remount(target string, w *words) error {
	if !w.bind {
		return mnt.Remount(target, false, append(w.words, w.sensitive...))
	}
	if _, err := w.attributes(m.log, target); err != nil {
		return err
	}
	return mnt.Remount(target, true, w.ofMount)
}
