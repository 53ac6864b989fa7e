package lvm

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/backends/internal/luks"
)

// TopologyKey is the topology segment that names the node of the volume groups.
const TopologyKey = "topology.lvm.csikit.dev/node"

// paramClass says what a volume is: all that is the administrator's is in Class.
const paramClass = "class"

// Half says which half of the driver a process serves.
type Half uint8

// The two halves.
const (
	ControllerHalf Half = 1 << iota
	NodeHalf
)

// Profile is how the volumes of a class lie on the disks.
type Profile string

// The profiles. What is not here cannot be asked for.
const (
	Linear  Profile = "linear"
	Striped Profile = "striped"
	RAID1   Profile = "raid1"
	RAID5   Profile = "raid5"
	RAID6   Profile = "raid6"
	RAID10  Profile = "raid10"
	Thin    Profile = "thin"
)

// Wipe is what is done to the data of a volume before its space is given back. A thin
// volume needs none: its pool gives away zeroed chunks alone.
type Wipe string

// How a volume that is no thin one is wiped.
const (
	// WipeZero writes zeros, or has the disk do it.
	WipeZero Wipe = "zero"
	// WipeDiscard has the disk deallocate what it can do so with zeros as the
	// result, and is WipeZero for all other disks.
	WipeDiscard Wipe = "discard"
	// WipeNone does nothing: what a volume had stays on the disks, where an
	// administrator can read it and nobody else. Volumes that get its extents are
	// overwritten with zeros before they are ready, as with Class.ZeroNew.
	WipeNone Wipe = "none"
)

// Class is one kind of volume: what parameter "class" names.
type Class struct {
	Name   string // a part of the IDs of its volumes, for ever: 1 to 31 of [a-z0-9-]
	VG     string // the volume group. It may be renamed: then change this
	VGUUID string // "": another class's of this VG, or the VG that has the name when it is first seen

	Profile Profile // "": Linear
	Stripes int     // disks with data, without parity; 0: 2 (raid6: 3). Of striped, raid5, raid6, raid10
	Mirrors int     // copies besides the first; 0: 1. Of raid1

	// ThinPool is the pool of a Thin class. It has to zero new chunks (lvcreate's
	// default), and to be there, unless PoolSize is set.
	ThinPool string
	// PoolSize is how big the pool is made, in bytes, when the first volume needs it
	// and it is not there; with new chunks zeroed, and so that writes to a full pool
	// fail instead of waiting; 0: it is given. PoolMetadata is the size of its
	// metadata; 0: what lvm takes.
	PoolSize, PoolMetadata int64
	// PoolMax is how big the pool may grow, in bytes: when its data or its metadata
	// are used to PoolExtendAt percent (0: 80), it is extended by a fifth, given or
	// not, as long as the VG has room beside Spare; 0: it is never extended.
	PoolMax      int64
	PoolExtendAt float64
	// Overcommit is how many bytes may be promised for each byte of the pool, over
	// all thin volumes and snapshots in it; 0: 1.
	Overcommit float64
	// DataLimit and MetaLimit are the percentages of use from which nothing is
	// created in the pool; 0: 95 and 80.
	DataLimit, MetaLimit float64

	Wipe Wipe // "": WipeZero; of a Thin class always ""
	// ZeroNew has zeros written to all that a volume is given, before it is ready and
	// before it has grown: also to extents that were never this driver's. Without it
	// the administrator vouches that those read as zeros, and removes no other LVs
	// from the VG without wiping them; a volume is then there at once, however big.
	ZeroNew bool
	Spare   int64 // bytes of the VG that are left free
}

// Options configure a Backend. Driver, Node and Classes are required.
type Options struct {
	Driver  string  // the driver's name: LVs of another are foreign
	Node    string  // the name of this node in topology
	Classes []Class // the first is the default

	// Cgroup is a directory of the cgroup v2 hierarchy on this node, for example
	// /sys/fs/cgroup/kubepods.slice: its processes and those of all cgroups below
	// it, together, are kept within the I/O limits that volumes have as mutable
	// parameters (read-bps, write-bps, read-iops, write-iops). "": volumes have no
	// such parameters. Both halves write its io.max.
	Cgroup string
	// EphemeralMax is how big an inline volume of a pod may be, in bytes; 0: pods
	// may have none. Whoever may make a pod can fill the VGs with them.
	EphemeralMax int64
	// MaxVolumes is how many volumes the CO may bring to this node; 0: any number.
	MaxVolumes int64
	// PoolInterval is the time between two looks at the pools of classes with
	// PoolMax; 0: 10 s.
	PoolInterval time.Duration

	// FreezeLimit is how long the volumes of a group snapshot may be kept from writing
	// while they are cut; 0: 10 s. A group that takes longer fails.
	FreezeLimit time.Duration

	// Settings of lvm.conf, as "devices/use_devicesfile": "0"; they are added to
	// those that this package needs, and win.
	Settings map[string]string
	// DeviceDir is where device nodes are made if /dev, as a container sees it,
	// lacks them; "": /run/csikit-lvm.
	DeviceDir string

	Half    Half            // what this process serves; 0: both
	Command *command.Runner // nil: one of its own, that gives lvm a minute between SIGTERM and SIGKILL
	Logger  *slog.Logger    // nil: none
}

// Traits say what the driver can do. They depend on configuration alone.
func Traits(o Options) backends.Traits {
	class := backends.Parameter{Name: paramClass, Doc: "one of the kinds of volume that the administrator of the node has set up"}
	for _, c := range o.Classes {
		class.Values = append(class.Values, c.Name)
	}
	if len(class.Values) > 0 {
		class.Default = class.Values[0]
	}
	return backends.Traits{
		Modes: []backends.AccessMode{
			backends.SingleNodeWriter, backends.SingleNodeReader,
			backends.SingleNodeSingleWriter, backends.SingleNodeMultiWriter,
		},
		Block:            true,
		Filesystem:       true,
		Devices:          true,
		FSTypes:          []string{"ext4", "xfs", "btrfs"},
		Lifecycle:        lifecycle(o),
		TopologyKeys:     []string{TopologyKey},
		SnapshotTopology: true,
		SizeMin:          1 << 20,
		SizeMax:          maxSize,
		SizeDefault:      1 << 30,
		Parameters:       append([]backends.Parameter{class, luks.Parameter()}, mutableParameters(o)...),
		Kubernetes:       backends.Kubernetes{FSGroupPolicy: "File", StorageCapacity: true, NodeLocal: true, HostPaths: hostPaths(o)},
	}
}

// hostPaths: with the host's locks and devices file, and its cgroups instead of the
// container's.
func hostPaths(o Options) []string {
	paths := []string{lockDir, "/etc/lvm"}
	if o.Cgroup != "" {
		paths = append(paths, "/sys/fs/cgroup")
	}
	return paths
}

func lifecycle(o Options) backends.Lifecycle {
	if o.EphemeralMax > 0 {
		return backends.Persistent | backends.Ephemeral
	}
	return backends.Persistent
}

func hasThin(classes []Class) bool {
	return slices.ContainsFunc(classes, func(c Class) bool { return c.Profile == Thin })
}

// maxSize keeps sums of sizes far from overflowing; lvm's own limit is 8 EiB.
const maxSize = 1 << 58

var (
	driverName  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)
	className   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)
	lvmName     = regexp.MustCompile(`^[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,126}$`)
	lvmUUID     = regexp.MustCompile(`^[A-Za-z0-9]{6}(-[A-Za-z0-9]{4}){5}-[A-Za-z0-9]{6}$`)
	settingName = regexp.MustCompile(`^[a-z_]+/[a-z0-9_]+$`)
)

// validName says whether lvm takes s as the name of a VG or an LV, and never as
// an option.
func validName(s string) bool { return lvmName.MatchString(s) && s != "." && s != ".." }

// complaints collects every mistake of a configuration.
type complaints []error

func (c *complaints) when(bad bool, format string, args ...any) {
	if bad {
		*c = append(*c, fmt.Errorf("lvm: "+format, args...))
	}
}

// check names every mistake at once and fills in defaults.
func (o *Options) check() error {
	var bad complaints
	bad.when(!driverName.MatchString(o.Driver), "Options.Driver %q is no name of a driver", o.Driver)
	bad.when(o.Node == "", "Options.Node is empty")
	bad.when(len(o.Classes) == 0, "Options.Classes is empty")
	bad.when(o.Half > ControllerHalf|NodeHalf, "Options.Half %d is unknown", o.Half)
	bad.when(o.Cgroup != "" && !filepath.IsAbs(o.Cgroup), "Options.Cgroup %q is no absolute path", o.Cgroup)
	bad.when(o.EphemeralMax < 0 || o.EphemeralMax > maxSize, "Options.EphemeralMax %d: want 0 to %d", o.EphemeralMax, int64(maxSize))
	bad.when(o.MaxVolumes < 0, "Options.MaxVolumes is negative")
	bad.when(o.PoolInterval < 0, "Options.PoolInterval is negative")
	for k, v := range o.Settings {
		bad.when(!settingName.MatchString(k) || v == "", "Options.Settings %q=%q: want section/name and a value", k, v)
	}
	o.Classes = slices.Clone(o.Classes)
	seen := map[string]bool{}
	for i := range o.Classes {
		c := &o.Classes[i]
		bad.when(seen[c.Name], "class %q is there twice", c.Name)
		seen[c.Name] = true
		c.check(&bad)
	}
	oneUUID(&bad, o.Classes)
	checkWipes(&bad, o.Classes)
	checkPools(&bad, o.Classes)
	if o.Half == 0 {
		o.Half = ControllerHalf | NodeHalf
	}
	bad.when(o.FreezeLimit < 0, "Options.FreezeLimit is negative")
	if o.FreezeLimit == 0 {
		o.FreezeLimit = defaultFreeze
	}
	if o.PoolInterval == 0 {
		o.PoolInterval = 10 * time.Second
	}
	if o.DeviceDir == "" {
		o.DeviceDir = "/run/csikit-lvm"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Command == nil {
		o.Command = command.New(&command.Options{Logger: o.Logger, Grace: time.Minute})
	}
	return errors.Join(bad...)
}

// oneUUID has the UUID that one class gives its VG be that of all classes there: who
// looks at a VG does so for all of them.
func oneUUID(bad *complaints, classes []Class) {
	of := map[string]string{}
	for _, c := range classes {
		was := of[c.VG]
		bad.when(was != "" && c.VGUUID != "" && was != c.VGUUID, "class %s: another class of volume group %s has another UUID of it", c.Name, c.VG)
		of[c.VG] = cmp.Or(c.VGUUID, was)
	}
	for i := range classes {
		classes[i].VGUUID = of[classes[i].VG]
	}
}

// profile is what lvcreate must be told, and how many disks it takes.
type profile struct {
	stripes, parity, copies int // defaults; 0: not of this profile
}

var profiles = map[Profile]profile{
	Linear:  {},
	Thin:    {},
	Striped: {stripes: 2},
	RAID1:   {copies: 1},
	RAID5:   {stripes: 2, parity: 1},
	RAID6:   {stripes: 3, parity: 2},
	RAID10:  {stripes: 2},
}

func (c *Class) check(bad *complaints) {
	if c.Profile == "" {
		c.Profile = Linear
	}
	p, known := profiles[c.Profile]
	bad.when(!className.MatchString(c.Name), "class %q: want 1 to 31 of [a-z0-9-], not starting with -", c.Name)
	bad.when(!validName(c.VG), "class %s: %q is no name of a volume group", c.Name, c.VG)
	bad.when(c.VGUUID != "" && !lvmUUID.MatchString(c.VGUUID), "class %s: %q is no UUID of a volume group", c.Name, c.VGUUID)
	bad.when(!known, "class %s: profile %q is not known", c.Name, c.Profile)
	bad.when(c.Stripes != 0 && (p.stripes == 0 || c.Stripes < p.stripes || c.Stripes > 64), "class %s: %d stripes for %s", c.Name, c.Stripes, c.Profile)
	bad.when(c.Mirrors != 0 && (p.copies == 0 || c.Mirrors < 1 || c.Mirrors > 9), "class %s: %d mirrors for %s", c.Name, c.Mirrors, c.Profile)
	bad.when(c.Spare < 0, "class %s: Spare is negative", c.Name)
	if c.Stripes == 0 {
		c.Stripes = p.stripes
	}
	if c.Mirrors == 0 {
		c.Mirrors = p.copies
	}
	if c.thin() {
		c.checkThin(bad)
		return
	}
	bad.when(c.ThinPool != "" || c.Overcommit != 0 || c.DataLimit != 0 || c.MetaLimit != 0 ||
		c.PoolSize != 0 || c.PoolMetadata != 0 || c.PoolMax != 0 || c.PoolExtendAt != 0, "class %s: a thin pool is for profile thin", c.Name)
	bad.when(c.Wipe != "" && c.Wipe != WipeZero && c.Wipe != WipeDiscard && c.Wipe != WipeNone, "class %s: wipe %q: want zero, discard or none", c.Name, c.Wipe)
	if c.Wipe == "" {
		c.Wipe = WipeZero
	}
}

func (c *Class) checkThin(bad *complaints) {
	bad.when(!validName(c.ThinPool), "class %s: %q is no name of a thin pool", c.Name, c.ThinPool)
	bad.when(c.Wipe != "" || c.ZeroNew, "class %s: thin volumes need no wipe", c.Name)
	bad.when(c.Overcommit != 0 && !(c.Overcommit >= 1 && c.Overcommit <= 1000), "class %s: Overcommit %v: want 1 to 1000", c.Name, c.Overcommit)
	bad.when(c.PoolSize < 0 || c.PoolMetadata < 0 || c.PoolMetadata > 0 && c.PoolSize == 0, "class %s: PoolSize %d, PoolMetadata %d", c.Name, c.PoolSize, c.PoolMetadata)
	bad.when(c.PoolMax < 0 || c.PoolMax > 0 && c.PoolMax < c.PoolSize || c.PoolExtendAt != 0 && c.PoolMax == 0, "class %s: PoolMax %d", c.Name, c.PoolMax)
	for _, l := range []float64{c.DataLimit, c.MetaLimit, c.PoolExtendAt} {
		bad.when(l != 0 && !(l >= 1 && l <= 100), "class %s: %v %%: want 1 to 100", c.Name, l)
	}
	if c.Overcommit == 0 {
		c.Overcommit = 1
	}
	if c.DataLimit == 0 {
		c.DataLimit = 95
	}
	if c.MetaLimit == 0 {
		c.MetaLimit = 80
	}
	if c.PoolExtendAt == 0 {
		c.PoolExtendAt = 80
	}
}

func (c *Class) thin() bool { return c.Profile == Thin }

// legs is how many disks a volume of the class lies on at a time, and how many of
// them hold what the user wrote once.
func (c *Class) legs() (all, data int) {
	p := profiles[c.Profile]
	switch c.Profile {
	case Striped, RAID5, RAID6:
		return c.Stripes + p.parity, c.Stripes
	case RAID1:
		return c.Mirrors + 1, 1
	case RAID10:
		return 2 * c.Stripes, c.Stripes
	default:
		return 1, 1
	}
}

// raid tells the profiles whose legs each have an extent of metadata.
func (c *Class) raid() bool {
	return c.Profile == RAID1 || c.Profile == RAID5 || c.Profile == RAID6 || c.Profile == RAID10
}
