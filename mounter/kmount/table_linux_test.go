package kmount_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"

	"github.com/csikit/csikit/mounter/mnt"
)

// play is one sequence of operations on one mounter, in a directory of its own.
// What it tells is what a caller could see.
type play struct {
	t    *testing.T
	m    mount.Interface
	dir  string
	dev  string // an ext4 device
	told []string
}

func (p *play) at(name string) string { return filepath.Join(p.dir, name) }

func (p *play) tell(format string, args ...any) {
	p.told = append(p.told, strings.ReplaceAll(fmt.Sprintf(format, args...), p.dir, "DIR"))
}

// err tells whether it worked; words of errors differ.
func (p *play) err(what string, err error) {
	word := "ok"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		word = "not there"
	case err != nil:
		word = "error"
	}
	p.t.Logf("%s: %v", what, err)
	p.tell("%s: %s", what, word)
}

func (p *play) mount(source, target, fstype string, options ...string) {
	err := p.m.Mount(source, target, fstype, options)
	if err != nil {
		err = errors.New(err.Error()) // a process has no error values
	}
	p.err(fmt.Sprintf("mount %s %v", filepath.Base(target), options), err)
	p.see(target)
}

func (p *play) unmount(target string) {
	p.err("unmount "+filepath.Base(target), p.m.Unmount(target))
	p.see(target)
}

// see tells what the kernel has at path.
func (p *play) see(path string) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	all, err := mnt.At(path)
	if err != nil {
		p.tell("  no path")
		return
	}
	for _, i := range all {
		opts := slices.Sorted(slices.Values(append(slices.Clone(i.Options), i.Super...)))
		p.tell("  %s root %s: %v", i.FSType, i.Root, slices.Compact(opts))
	}
	if names, err := os.ReadDir(path); err == nil {
		p.tell("  %d mounts, holds %v", len(all), names)
	}
}

func (p *play) look(path string) {
	likely, err := p.m.IsLikelyNotMountPoint(path)
	p.err(fmt.Sprintf("likely not %s %v", filepath.Base(path), likely), err)
	is, err := p.m.IsMountPoint(path)
	p.err(fmt.Sprintf("is %v", is), err)
}

func (p *play) refs(path string) {
	refs, err := p.m.GetMountRefs(path)
	p.err("refs "+strings.Join(slices.Sorted(slices.Values(refs)), " "), err)
}

func (p *play) listed(path string) {
	list, err := p.m.List()
	must(p.t, err)
	for _, l := range list {
		if l.Path == path {
			p.tell("listed %s %s %v", l.Type, l.Path, slices.Sorted(slices.Values(l.Opts)))
		}
	}
}

// sequences are what both mounters are asked to do. Where differs is not empty
// it says why kmount answers otherwise, and instead what it answers, as far as that
// is another line.
var sequences = []struct {
	name    string
	do      func(p *play)
	differs string
	instead map[string]string // line of mount-utils -> line of kmount; "": no such line
}{
	{name: "bind and unmount", do: func(p *play) {
		p.mount(p.at("src"), p.at("dst"), "", "bind")
		p.look(p.at("dst"))
		p.unmount(p.at("dst"))
		p.look(p.at("dst"))
	}},
	{name: "read-only bind", do: func(p *play) {
		p.mount(p.at("src"), p.at("dst"), "", "bind", "ro")
		p.err("write", os.WriteFile(p.at("dst/new"), nil, 0o600))
		p.err("write to the source", os.WriteFile(p.at("src/new"), nil, 0o600))
	}},
	{name: "bind with attributes in one word", do: func(p *play) {
		p.mount(p.at("src"), p.at("dst"), "", "ro,noexec,nosuid", "bind", "noatime")
	}},
	{name: "bind with words of fstab", do: func(p *play) {
		p.mount(p.at("src"), p.at("dst"), "", "bind", "_netdev", "defaults", "nofail")
	}},
	{name: "bind with an option of the file system", do: func(p *play) {
		p.mount(p.at("src"), p.at("dst"), "", "bind", "discard", "nfsvers=4.1")
	}},
	{name: "bind keeps what the source has", do: func(p *play) {
		p.mount("tmpfs", p.at("src"), "tmpfs", "ro", "nosuid", "nodev")
		p.mount(p.at("src"), p.at("dst"), "", "bind", "rw", "suid")
	}},
	{name: "bind of a file", do: func(p *play) {
		p.mount(p.at("src/file"), p.at("file"), "", "bind")
		p.look(p.at("file"))
		p.unmount(p.at("file"))
	}},
	{name: "bind of a directory on a file", do: func(p *play) { p.mount(p.at("src"), p.at("file"), "", "bind") }},
	{name: "bind of nothing", do: func(p *play) { p.mount(p.at("none"), p.at("dst"), "", "bind") }},
	{name: "bind on nothing", do: func(p *play) { p.mount(p.at("src"), p.at("none"), "", "bind") }},
	{name: "a second bind stacks", do: func(p *play) {
		p.mount(p.at("src"), p.at("dst"), "", "bind")
		p.mount(p.at("src"), p.at("dst"), "", "bind", "ro")
		p.unmount(p.at("dst"))
		p.unmount(p.at("dst"))
		p.unmount(p.at("dst"))
	}},
	{name: "something else on top", do: func(p *play) {
		p.mount(p.at("src"), p.at("dst"), "", "bind")
		p.mount("tmpfs", p.at("dst"), "tmpfs", "size=1m")
		p.unmount(p.at("dst"))
	}},
	{name: "remount bind", differs: "bind,remount means the mount that is there; mount-utils binds again on top", do: func(p *play) {
		p.mount(p.at("src"), p.at("dst"), "", "bind")
		p.mount(p.at("src"), p.at("dst"), "", "bind", "remount", "ro")
	}, instead: map[string]string{"  tmpfs root /src: [relatime rw]#2": "", "  2 mounts, holds [- file]": "  1 mounts, holds [- file]"}},
	{name: "remount", do: func(p *play) {
		p.mount("tmpfs", p.at("dst"), "tmpfs", "size=1m", "noexec")
		p.mount("tmpfs", p.at("dst"), "", "remount", "ro", "noexec")
		p.mount("tmpfs", p.at("dst"), "", "remount", "rw", "noexec", "size=2m")
	}},
	{name: "remount without a source keeps the rest", do: func(p *play) {
		p.mount("tmpfs", p.at("dst"), "tmpfs", "size=1m", "noexec", "nosuid", "noatime")
		p.mount("", p.at("dst"), "", "remount", "ro")
		p.mount("", p.at("dst"), "", "remount", "rw", "exec")
	}},
	{name: "remount of nothing", do: func(p *play) { p.mount("tmpfs", p.at("dst"), "", "remount", "ro") }},
	{name: "tmpfs", do: func(p *play) {
		p.mount("tmpfs", p.at("dst"), "tmpfs", "size=1m", "mode=750", "nosuid")
		p.listed(p.at("dst"))
		p.unmount(p.at("dst"))
	}},
	{name: "flags of the file system", do: func(p *play) {
		p.mount("tmpfs", p.at("dst"), "tmpfs", "sync", "dirsync", "_netdev", "nofail", "x-systemd.automount")
		p.listed(p.at("dst"))
	}},
	{name: "no options", do: func(p *play) { p.mount("tmpfs", p.at("dst"), "tmpfs") }},
	{name: "wrong option", do: func(p *play) { p.mount("tmpfs", p.at("dst"), "tmpfs", "no-such-option") }},
	{name: "wrong value", do: func(p *play) { p.mount("tmpfs", p.at("dst"), "tmpfs", "size=big") }},
	{name: "wrong type", do: func(p *play) { p.mount("x", p.at("dst"), "no-such-fs") }},
	{name: "target missing", do: func(p *play) { p.mount("tmpfs", p.at("none"), "tmpfs") }},
	{name: "target is a link", do: func(p *play) {
		must(p.t, os.Symlink(p.at("dst"), p.at("link")))
		p.mount(p.at("src"), p.at("link"), "", "bind")
		p.look(p.at("link"))
		p.refs(p.at("link"))
		p.unmount(p.at("link"))
		p.see(p.at("dst"))
	}},
	{name: "source is a link", do: func(p *play) {
		must(p.t, os.Symlink(p.at("src"), p.at("link")))
		p.mount(p.at("link"), p.at("dst"), "", "bind")
	}},
	{name: "path through a link", do: func(p *play) {
		must(p.t, os.Symlink(p.dir, p.at("src/up")))
		p.mount(p.at("src"), p.at("src/up/dst"), "", "bind")
		p.look(p.at("src/up/dst"))
		p.unmount(p.at("src/up/dst"))
	}},
	{name: "trailing slash and dots", do: func(p *play) {
		p.mount(p.at("src")+"/", p.at("dst")+"//", "", "bind")
		p.look(p.at("dst") + "/")
		p.look(p.at("dst") + "/.")
		p.unmount(p.at("dst") + "/")
	}},
	{name: "unmount of what is no mount", do: func(p *play) { p.unmount(p.at("dst")) }},
	{name: "unmount of what is not there", differs: "nothing is mounted there, which is what was asked for", do: func(p *play) {
		p.unmount(p.at("none"))
	}, instead: map[string]string{"unmount none: error": "unmount none: ok"}},
	{name: "unmount of a busy mount", do: func(p *play) {
		p.mount(p.at("src"), p.at("dst"), "", "bind")
		f, err := os.Open(p.at("dst/file"))
		must(p.t, err)
		p.unmount(p.at("dst"))
		must(p.t, f.Close())
		p.unmount(p.at("dst"))
	}},
	{name: "unmount with force", do: func(p *play) {
		u := p.m.(mount.MounterForceUnmounter)
		p.mount(p.at("src"), p.at("dst"), "", "bind")
		p.err("force", u.UnmountWithForce(p.at("dst"), time.Minute))
		p.see(p.at("dst"))
		p.err("force again", u.UnmountWithForce(p.at("dst"), time.Minute))
		p.tell("skip check: %v", u.CanSafelySkipMountPointCheck())
	}},
	{name: "look at what is not there", do: func(p *play) { p.look(p.at("none")); p.look(p.at("file/below")) }},
	{name: "look at files and directories", do: func(p *play) { p.look(p.at("src")); p.look(p.at("file")); p.look("/") }},
	{name: "look at a dead server", differs: "it is a mount point, and a caller must be told so to unmount it", do: func(p *play) {
		deadFUSE(p.t, p.at("dst"))
		p.look(p.at("dst"))
		p.refs(p.at("dst"))
		p.unmount(p.at("dst"))
	}, instead: map[string]string{"is false: error": "is true: ok"}},
	{name: "other mounts of a dead server", differs: "mount-utils takes a dead mount for none", do: func(p *play) {
		deadFUSE(p.t, p.at("dst"))
		must(p.t, unix.Mount(p.at("dst"), p.at("other"), "", unix.MS_BIND, ""))
		p.refs(p.at("dst"))
	}, instead: map[string]string{"refs : ok": "refs DIR/other: ok"}},
	{name: "references", do: func(p *play) {
		p.mount("tmpfs", p.at("src"), "tmpfs")
		mkdir(p.t, p.at("src/sub"))
		p.mount(p.at("src"), p.at("dst"), "", "bind")
		p.mount(p.at("src/sub"), p.at("other"), "", "bind")
		for _, path := range []string{"src", "dst", "other", "src/sub", "file", "none"} {
			p.refs(p.at(path))
		}
	}},
	{name: "names with spaces", differs: "the name is what the directory is called", do: func(p *play) {
		p.mount(p.at("src"), p.at("a b\tc\\d"), "", "bind")
		p.look(p.at("a b\tc\\d"))
		p.listed(p.at("a b\tc\\d"))
		p.listed(p.at(`a\040b\011c\134d`))
		p.unmount(p.at("a b\tc\\d"))
	}, instead: map[string]string{`listed tmpfs DIR/a\040b\011c\134d [relatime rw]`: "listed tmpfs DIR/a b\tc\\d [relatime rw]"}},
	{name: "hidden below a mount on the parent", do: func(p *play) {
		mkdir(p.t, p.at("dst/sub"))
		p.mount(p.at("src"), p.at("dst/sub"), "", "bind")
		p.mount("tmpfs", p.at("dst"), "tmpfs")
		mkdir(p.t, p.at("dst/sub"))
		p.look(p.at("dst/sub"))
	}},
	{name: "device", do: func(p *play) {
		p.mount(p.dev, p.at("dst"), "ext4", "noatime")
		p.mount(p.dev, p.at("other"), "ext4", "noatime")
		p.mount(p.at("dst"), p.at("third"), "", "bind", "ro")
		p.refs(p.at("dst"))
		p.unmount(p.at("third"))
		p.unmount(p.at("other"))
		p.unmount(p.at("dst"))
	}},
	{name: "device whose type is not said", do: func(p *play) { p.mount(p.dev, p.at("dst"), "", "ro") }},
	{name: "device twice on one directory", do: func(p *play) {
		p.mount(p.dev, p.at("dst"), "ext4")
		p.mount(p.dev, p.at("dst"), "ext4")
	}},
	{name: "device of another type", do: func(p *play) { p.mount(p.dev, p.at("dst"), "xfs") }},
	{name: "recursive bind", differs: "refused: what else is mounted below would have to be unmounted by somebody", do: func(p *play) {
		p.mount(p.at("src"), p.at("dst"), "", "rbind")
	}, instead: map[string]string{
		"mount dst [rbind]: ok": "mount dst [rbind]: error", "  tmpfs root /src: [relatime rw]": "",
		"  1 mounts, holds [- file]": "  0 mounts, holds []",
	}},
	{name: "flags of the command", do: func(p *play) {
		err := p.m.MountSensitiveWithoutSystemdWithMountFlags(p.at("src"), p.at("dst"), "", []string{"bind"}, nil, []string{"--no-canonicalize"})
		p.err("mount", err)
		p.see(p.at("dst"))
	}},
	{name: "sensitive options", do: func(p *play) {
		p.err("mount", p.m.MountSensitive("tmpfs", p.at("dst"), "tmpfs", []string{"size=1m"}, []string{"mode=700", "ro"}))
		p.see(p.at("dst"))
		p.err("bind", p.m.MountSensitiveWithoutSystemd(p.at("src"), p.at("other"), "", nil, []string{"bind", "ro"}))
		p.see(p.at("other"))
	}},
}

// TestSameAsMountUtils: the same operations on mount-utils' Mounter and on ours
// show the same, but for what is listed and argued.
func TestSameAsMountUtils(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		for _, s := range sequences {
			t.Run(s.name, func(t *testing.T) {
				want := perform(t, mount.NewWithoutSystemd(""), s.do)
				got := perform(t, newMounter(t, nil), s.do)
				if (s.differs == "") != (len(s.instead) == 0) {
					t.Fatal("a difference needs lines and a reason")
				}
				seen := map[string]int{}
				var expected []string
				used := 0
				for _, line := range want {
					seen[line]++
					other, ok := s.instead[line]
					if !ok {
						other, ok = s.instead[fmt.Sprintf("%s#%d", line, seen[line])]
					}
					switch {
					case !ok:
						expected = append(expected, line)
					case other != "":
						expected = append(expected, other)
						used++
					default:
						used++
					}
				}
				if used < len(s.instead) {
					t.Errorf("a difference that is none any more: %v", s.instead)
				}
				if !slices.Equal(got, expected) {
					t.Errorf("mount-utils (with the differences):\n%s\nkmount:\n%s", strings.Join(expected, "\n"), strings.Join(got, "\n"))
				}
			})
		}
	})
}

func perform(t *testing.T, m mount.Interface, do func(*play)) []string {
	p := &play{t: t, m: m, dir: tempDir(t)}
	for _, d := range []string{"src", "dst", "other", "third", "a b\tc\\d"} {
		mkdir(t, p.dir, d)
	}
	mkfile(t, p.dir, "file")
	mkfile(t, p.dir, "src/file")
	l := newLoops(t)
	p.dev = l.device("disk", 32*mib)
	run(t, "mkfs.ext4", "-q", "-F", p.dev)
	do(p)
	list, err := mnt.List()
	must(t, err)
	for _, i := range slices.Backward(list) {
		if strings.HasPrefix(i.Point, p.dir+"/") {
			_ = unix.Unmount(i.Point, unix.MNT_DETACH)
		}
	}
	return p.told
}
