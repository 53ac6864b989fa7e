package mounter

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends/command"
)

// A driver's image is often newer than the kernel of the host: its mkfs turns on
// what that kernel cannot mount, or only knows as an experiment. Such features are
// turned off by name, but only with a tool that is sure to know the name. What the
// backend's MkfsOptions say of a feature counts.

// version is a major and a minor number.
type version [2]int

func (v version) before(w version) bool { return slices.Compare(v[:], w[:]) < 0 }

// feature is something that newer tools turn on by themselves.
type feature struct {
	fsType, name string
	kernel       version // the first that has it, and not as an experiment
	tool         version // one that knows the name, and not later than the first that has it on
	off          []string
}

// mkfsFeatures: kernels as in the kernel's own announcements and the lts_*.conf of
// xfsprogs. For ext4, off is a list of its own, as mke2fs believes the last -O only.
var mkfsFeatures = []feature{
	{"ext4", "metadata_csum_seed", version{4, 4}, version{1, 43}, nil},
	{"ext4", "orphan_file", version{5, 15}, version{1, 47}, nil},
	{"xfs", "sparse", version{4, 10}, version{4, 16}, []string{"-i", "sparse=0"}},
	{"xfs", "reflink", version{4, 16}, version{4, 16}, []string{"-m", "reflink=0"}},
	{"xfs", "rmapbt", version{4, 16}, version{4, 16}, []string{"-m", "rmapbt=0"}},
	{"xfs", "bigtime", version{5, 15}, version{5, 12}, []string{"-m", "bigtime=0"}},
	{"xfs", "inobtcount", version{5, 15}, version{5, 12}, []string{"-m", "inobtcount=0"}},
	{"xfs", "nrext64", version{6, 5}, version{6, 0}, []string{"-i", "nrext64=0"}},
	{"xfs", "exchange", version{6, 18}, version{6, 11}, []string{"-i", "exchange=0"}},
	{"xfs", "parent", version{6, 18}, version{6, 11}, []string{"-n", "parent=0"}},
	{"btrfs", "no-holes", version{4, 0}, version{5, 15}, []string{"-O", "^no-holes"}},
	{"btrfs", "free-space-tree", version{4, 9}, version{5, 15}, []string{"-R", "^free-space-tree"}},
	{"btrfs", "block-group-tree", version{6, 1}, version{6, 19}, []string{"-O", "^block-group-tree"}},
}

// tooNew lists what the kernel lacks, of what the options do not speak of.
func tooNew(fsType string, kernel version, options []string) []feature {
	var list []feature
	if fsType == "xfs" && slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "-c") }) {
		return nil // a file of features, and each may be named once
	}
	for _, f := range mkfsFeatures {
		if f.fsType == fsType && kernel.before(f.kernel) && !names(options, f.name) {
			list = append(list, f)
		}
	}
	return list
}

// names reports whether the options of an mkfs turn a feature on or off.
func names(options []string, feature string) bool {
	return slices.ContainsFunc(options, func(o string) bool {
		words := strings.FieldsFunc(o, func(r rune) bool { return strings.ContainsRune(",=^", r) })
		return slices.ContainsFunc(words, func(w string) bool { return w == feature || len(w) > 2 && w[0] == '-' && w[2:] == feature })
	})
}

// withFeatures turns off what the tool knows, and adds the backend's options.
func withFeatures(fsType string, off []feature, tool version, options []string) []string {
	args := []string{}
	var ext []string
	for _, f := range off {
		switch {
		case tool.before(f.tool):
		case fsType == "ext4":
			ext = append(ext, "^"+f.name)
		default:
			args = append(args, f.off...)
		}
	}
	if len(ext) == 0 {
		return append(args, options...)
	}
	list := strings.Join(ext, ",")
	options = slices.Clone(options)
	for i, o := range slices.Backward(options) {
		switch {
		case o == "-O" && i+1 < len(options):
			options[i+1] = list + "," + options[i+1]
		case strings.HasPrefix(o, "-O") && o != "-O":
			options[i] = "-O" + list + "," + o[2:]
		default:
			continue
		}
		return options
	}
	return append([]string{"-O", list}, options...)
}

// mkfsOptions are the backend's options, and what this kernel needs besides.
func (k linux) mkfsOptions(ctx context.Context, fsType string, options []string) ([]string, error) {
	off := tooNew(fsType, k.release, options)
	if len(off) == 0 {
		return options, nil
	}
	tool, err := k.tools.version(ctx, k.run, "mkfs."+fsType)
	if err != nil {
		return nil, err
	}
	return withFeatures(fsType, off, tool, options), nil
}

// toolVersions remembers what each tool has said.
type toolVersions struct {
	mu    sync.Mutex
	known map[string]version
}

func (t *toolVersions) version(ctx context.Context, run Commands, tool string) (version, error) {
	t.mu.Lock()
	v, ok := t.known[tool]
	t.mu.Unlock()
	if ok {
		return v, nil
	}
	res, err := run.Run(ctx, command.Cmd{Path: tool, Args: []string{"-V"}})
	if err != nil {
		return version{}, fmt.Errorf("version of %s: %w", tool, err)
	}
	if v, ok = parseVersion(string(res.Stdout) + "\n" + string(res.Stderr)); !ok { // mke2fs: on stderr
		return v, unavailable("%s -V says %q and %q, and no version", tool, res.Stdout, res.Stderr)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil {
		t.known = map[string]version{}
	}
	t.known[tool] = v
	return v, nil
}

// parseVersion finds the first two numbers of a version in a text.
func parseVersion(s string) (v version, ok bool) {
	for i := range s {
		if n, _ := fmt.Sscanf(s[i:], "%d.%d", &v[0], &v[1]); n == 2 && v[0] > 0 {
			return v, true
		}
	}
	return version{}, false
}

// kernelRelease is the version of the running kernel. One that cannot be told is
// taken for the newest: then the tools' own defaults count.
func kernelRelease() version {
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		if v, ok := parseVersion(unix.ByteSliceToString(u.Release[:])); ok {
			return v
		}
	}
	return version{1 << 30, 0}
}
