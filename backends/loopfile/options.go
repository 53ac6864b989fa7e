package loopfile

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/backends/internal/luks"
)

// TopologyKey is the topology segment that names the node of a pool.
const TopologyKey = "topology.loopfile.csikit.dev/node"

// Half says which half of the driver a process serves.
type Half uint8

// Each half of a pool is served by one process.
const (
	ControllerHalf Half = 1 << iota
	NodeHalf
)

// Options configure a Backend. Pool and Node are required.
type Options struct {
	Pool string // the pool's directory
	Name string // the pool's name, when pool.json must have this one; "": whatever it has
	Node string // the name of this node in topology

	Thin       bool    // volumes are thin unless parameter "type" says otherwise
	Overcommit float64 // bytes that may be promised for each free byte; 0: 1, nothing is promised twice
	Reserve    int64   // free bytes that no volume may take; 0: 2 % of the file system; -1: none
	Buffered   bool    // loop devices through the page cache; else direct I/O where the file system can

	// FreezeLimit is how long a volume that is in use may be kept from writing while
	// a snapshot or a clone of it is made; 0: 10 s. Where the pool's file system
	// has reflinks (xfs, btrfs) it takes milliseconds. Elsewhere the data is
	// copied, and a volume in use with more than can be copied in that time is
	// ErrPrecondition; one that nobody uses is copied in any case.
	FreezeLimit time.Duration

	// EphemeralMax is how big an inline volume of a pod may be, in bytes; 0: pods
	// may have none. Whoever may make a pod can fill the pool with them.
	EphemeralMax int64
	// Attach asks for every volume to be attached to the node before it is opened
	// there. The storage does not need it: it is for tests of what calls a driver.
	Attach bool

	// Cgroup is a directory of the cgroup v2 hierarchy on this node, for example
	// /sys/fs/cgroup/kubepods.slice: its processes and those of all cgroups below
	// it, together, are kept within the I/O limits that volumes have as mutable
	// parameters (read-bps, write-bps, read-iops, write-iops). "": volumes have no
	// such parameters and cannot be modified. Both halves write its io.max.
	Cgroup string

	// Init makes the pool in New when the directory is empty. For tests, demos
	// and a first start: a service that always sets it would make a new, empty
	// pool beneath a disk that is not mounted.
	Init bool
	// AllowRootFS permits a pool on a container's own root (overlayfs) or in
	// memory (tmpfs), where it does not survive a restart.
	AllowRootFS bool

	Half    Half            // what this process serves; 0: both
	Command *command.Runner // for the tools that give a copy its own identity; nil: one of its own
	Logger  *slog.Logger    // nil: none
}

// Traits say what the driver can do. They depend on configuration alone and are
// the same in every process that is started with the same options.
func Traits(o Options) backends.Traits {
	t := backends.Traits{
		Modes: []backends.AccessMode{
			backends.SingleNodeWriter, backends.SingleNodeReader,
			backends.SingleNodeSingleWriter, backends.SingleNodeMultiWriter,
		},
		Block:        true,
		Filesystem:   true,
		Devices:      true,
		FSTypes:      []string{"ext4", "xfs", "btrfs"},
		Lifecycle:    lifecycle(o),
		TopologyKeys: []string{TopologyKey},
		// Snapshots are where their volumes are.
		SnapshotTopology: true,
		SizeMin:          1 << 20,
		SizeDefault:      1 << 30,
		SizeStep:         sizeStep,
		Parameters: []backends.Parameter{
			{
				Name: paramType, Values: []string{typeThick, typeThin}, Default: defaultType(o.Thin),
				Doc: "thick: all space is allocated when the volume is made; thin: as it is written",
			},
			{
				Name: paramBlockSize, Values: []string{"512", "4096"}, Default: "512",
				Doc: "logical block size of the device, in bytes",
			},
			luks.Parameter(),
		},
		Kubernetes: backends.Kubernetes{FSGroupPolicy: "File", StorageCapacity: true, NodeLocal: true},
	}
	if o.Cgroup != "" {
		t.Parameters = append(t.Parameters, iolimit.Parameters()...)
	}
	return t
}

func lifecycle(o Options) backends.Lifecycle {
	if o.EphemeralMax > 0 {
		return backends.Persistent | backends.Ephemeral
	}
	return backends.Persistent
}

func defaultType(thin bool) string {
	if thin {
		return typeThin
	}
	return typeThick
}

// check names every mistake at once and fills in defaults.
func (o *Options) check() error {
	var errs []error
	bad := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf("loopfile: "+format, args...))
		}
	}
	bad(o.Pool == "", "Options.Pool is empty")
	bad(o.Node == "", "Options.Node is empty")
	bad(o.Name != "" && !validPoolName(o.Name), "Options.Name %q: want %s", o.Name, poolNameRule)
	bad(o.Overcommit != 0 && !(o.Overcommit >= 1 && o.Overcommit <= 1000), "Options.Overcommit %v: want 1 to 1000", o.Overcommit)
	bad(o.Reserve < -1, "Options.Reserve %d is negative", o.Reserve)
	bad(o.EphemeralMax != 0 && o.EphemeralMax < Traits(*o).SizeMin, "Options.EphemeralMax %d is less than the least size of a volume", o.EphemeralMax)
	bad(o.Cgroup != "" && !filepath.IsAbs(o.Cgroup), "Options.Cgroup %q is no absolute path", o.Cgroup)
	bad(o.FreezeLimit < 0, "Options.FreezeLimit %v is negative", o.FreezeLimit)
	bad(o.Half > ControllerHalf|NodeHalf, "Options.Half %d is unknown", o.Half)
	if o.Overcommit == 0 {
		o.Overcommit = 1
	}
	if o.FreezeLimit == 0 {
		o.FreezeLimit = 10 * time.Second
	}
	if o.Half == 0 {
		o.Half = ControllerHalf | NodeHalf
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Command == nil {
		o.Command = command.New(&command.Options{Logger: o.Logger})
	}
	return errors.Join(errs...)
}
