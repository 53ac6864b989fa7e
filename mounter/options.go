package mounter

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
)

// Options of an [Engine].
type Options struct {
	// StateDir holds the node records. An absolute path on the host's own disk:
	// on a container's own root it would be gone with the container.
	StateDir string
	// AllowVolatileState accepts a StateDir on a container's root or on a tmpfs:
	// for tests and demonstrations.
	AllowVolatileState bool
	Logger             *slog.Logger    // nil: slog.Default()
	Command            *command.Runner // runs mkfs and its like; nil: an own one
	// FSTypes are the file systems that the driver offers (Traits.FSTypes). What is
	// on a disk already is mounted even if it is not among them.
	FSTypes []string
	// DefaultFS is made when the CO names no type; "": the first of FSTypes, or
	// ext4.
	DefaultFS string
	// NoDevices says that the backend's volumes are no devices (Traits.Devices is
	// not set): a device from OpenVolume is then refused, not formatted.
	NoDevices bool
	// SharedDirs are directories whose mounts must reach other namespaces, such
	// as kubelet's: without that pods see empty directories. Start refuses one
	// that is not on a shared mount.
	SharedDirs []string
	// StatsTimeout bounds the wait for figures and for the health of a volume; 0: 10 s.
	StatsTimeout time.Duration
	// StatsMaxAge is how old figures may be that stand for those of a file system that
	// does not answer; 0: 5 min, negative: they never do.
	StatsMaxAge time.Duration
	// MaxTools bounds how many mkfs, fsck and offline resizes run at once; 0: as many
	// as there are CPUs. The others wait.
	MaxTools int
	// Unmount says what is done about a mount that does not come off: what loses
	// least is the default.
	Unmount UnmountPolicy
	// UnmountTimeout bounds each step of an unmount. The caller is then told what
	// hangs, and asks again; 0: 20 s.
	UnmountTimeout time.Duration
	// Servers runs the servers of FUSE file systems; nil: a backend cannot give one.
	Servers ServerHost
	// ServerStart bounds the wait for a new server's first answer; 0: 30 s.
	ServerStart time.Duration
	// ServerAnswer bounds the wait for an answer of one that runs; 0: 5 s.
	ServerAnswer time.Duration
	// Observer is told of each step before it is done, under the volume's lock;
	// for tests and metrics. nil ok.
	Observer func(step string)
	// Kernel is what the engine works on; nil: this machine's.
	Kernel Kernel
}

const (
	defaultStatsTimeout = 10 * time.Second
	defaultStatsMaxAge  = 5 * time.Minute
)

// withDefaults checks the options and fills in what is left out.
func (o *Options) withDefaults() (Options, error) {
	if o == nil {
		o = &Options{}
	}
	c := *o
	if !filepath.IsAbs(c.StateDir) {
		return c, fmt.Errorf("%w: StateDir %q is not an absolute path", backends.ErrInvalid, c.StateDir)
	}
	c.StateDir = filepath.Clean(c.StateDir)
	for _, t := range append([]string{c.DefaultFS}, c.FSTypes...) {
		if t != "" && !slices.Contains(mountable, t) {
			return c, fmt.Errorf("%w: file system type %q is none of %v", backends.ErrInvalid, t, mountable)
		}
	}
	if c.DefaultFS == "" {
		c.DefaultFS = append(slices.Clone(c.FSTypes), "ext4")[0]
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.StatsTimeout <= 0 {
		c.StatsTimeout = defaultStatsTimeout
	}
	if c.StatsMaxAge == 0 {
		c.StatsMaxAge = defaultStatsMaxAge
	}
	if c.MaxTools <= 0 {
		c.MaxTools = runtime.NumCPU()
	}
	if c.UnmountTimeout <= 0 {
		c.UnmountTimeout = defaultUnmountTimeout
	}
	if c.Unmount > UnmountLazy {
		return c, fmt.Errorf("%w: unmount policy %d", backends.ErrInvalid, c.Unmount)
	}
	if c.ServerStart <= 0 {
		c.ServerStart = defaultServerStart
	}
	if c.ServerAnswer <= 0 {
		c.ServerAnswer = defaultServerAnswer
	}
	if c.Observer == nil {
		c.Observer = func(string) {}
	}
	if c.Kernel == nil {
		k, err := newKernel(&c)
		if err != nil {
			return c, err
		}
		c.Kernel = k
	}
	return c, nil
}
