package nfs

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
)

// Half says which half of the driver a process serves.
type Half uint8

// The two halves.
const (
	ControllerHalf Half = 1 << iota
	NodeHalf
)

// Quota says what keeps a volume from growing beyond its size.
type Quota string

// The kinds of quota.
const (
	// QuotaNone: nothing does. Volumes have no capacity, and cannot be expanded.
	QuotaNone Quota = ""
	// QuotaGuard: nothing does, but the controller measures, and the health of a
	// volume with more than its size says so.
	QuotaGuard Quota = "guard"
	// QuotaProject: project quota of the file system, for shares with a LocalDir on
	// xfs or ext4 that is mounted with prjquota. ext4 does not hold root to it.
	QuotaProject Quota = "project"
	// QuotaHook: Options.Hook does.
	QuotaHook Quota = "hook"
)

// Legacy says what becomes of volumes that csi-driver-nfs made. They have no
// marker, and nothing but their handle says that they are volumes.
type Legacy uint8

// What may be done to volumes of csi-driver-nfs.
const (
	LegacyRefuse Legacy = iota // their handles are unknown; what is surely one is ErrPrecondition
	LegacyUse                  // used, but not deleted: ErrPrecondition, unless the handle says retain
	LegacyDelete               // deleted, archived or retained, as their handle says
)

// Options configure a Backend. One of Shares and AnyShare is required.
type Options struct {
	// Installation tells apart drivers that share an export; "": "csikit".
	Installation string
	// Shares have names in handles; the first is the default of a class that names
	// none.
	Shares []Share
	// AnyShare lets a class name any server and path. Their volumes are not listed:
	// nobody knows where they all are.
	AnyShare bool
	// Init prepares a share that was never used. Without it a share without the
	// directory of this installation is a disk that is not mounted on its server, and
	// every call answers ErrUnavailable. It is for the controller, and set once, or where
	// that cannot happen: a share whose ID is known (Share.ID, StateDir) is not prepared
	// again, but a new host knows none.
	Init bool
	// OnDelete is what becomes of a deleted volume, if its class does not say:
	// "delete" (""), "retain" or "archive".
	OnDelete string
	Legacy   Legacy
	Quota    Quota
	// Hook is a program that makes snapshots and quotas of the server's own (ZFS, a
	// vendor's interface): its path and first arguments. See docs/nfs.md.
	Hook []string
	// HookSnapshots has Hook make snapshots; else they are copies.
	HookSnapshots bool
	// Ephemeral permits inline volumes of pods: directories of Shares, which go
	// with their pod.
	Ephemeral bool
	// MountGroup leaves a pod's fsGroup to the driver, which gives a volume's root to it
	// once, and lets a volume be used with one at a time on a node. Otherwise kubelet gives
	// all files to each pod's, which takes long where there are millions (see
	// fsGroupChangePolicy).
	MountGroup bool

	// StateDir is a directory of this host, on its own disk, that is the driver's alone;
	// "": /var/lib/csikit-nfs. It keeps which share each one is, so that another disk in
	// its place, or none, is not taken for it: that is ErrUnavailable, and not volumes
	// that are not found.
	StateDir string
	Half     Half            // what this process serves; 0: both
	Command  *command.Runner // nil: one of its own
	Logger   *slog.Logger    // nil: none
}

// Traits say what the driver can do. They depend on configuration alone.
func Traits(o Options) backends.Traits {
	t := backends.Traits{
		Modes: []backends.AccessMode{
			backends.MultiNodeMultiWriter, backends.MultiNodeReader, backends.MultiNodeSingleWriter,
			backends.SingleNodeWriter, backends.SingleNodeReader,
			backends.SingleNodeSingleWriter, backends.SingleNodeMultiWriter,
		},
		Filesystem: true,
		Lifecycle:  backends.Persistent,
		MountGroup: o.MountGroup,
		Parameters: parameters(),
		// The controller mounts shares for itself, in mount namespaces of its own.
		// No StorageCapacity: each node reaches the same share.
		Kubernetes: backends.Kubernetes{FSGroupPolicy: "File", HostNetwork: true, PrivilegedController: true},
	}
	if o.Quota != QuotaNone {
		t.SizeMin, t.SizeDefault, t.SizeStep = 1<<20, 1<<30, 4096
	}
	if o.Ephemeral {
		t.Lifecycle |= backends.Ephemeral
		t.Kubernetes.PodInfo = true
	}
	return t
}

var installationName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,30}[a-z0-9])?$`)

// check names every mistake at once and fills in defaults.
func (o *Options) check() error {
	var errs []error
	bad := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf("nfs: "+format, args...))
		}
	}
	if o.Installation == "" {
		o.Installation = "csikit"
	}
	if o.OnDelete == "" {
		o.OnDelete = onDeleteDelete
	}
	if o.StateDir == "" {
		o.StateDir = "/var/lib/csikit-nfs"
	}
	bad(!installationName.MatchString(o.Installation), "Options.Installation %q: want %s", o.Installation, installationName)
	bad(len(o.Shares) == 0 && !o.AnyShare, "Options.Shares is empty, and AnyShare is not set")
	bad(!slices.Contains(onDeletes, o.OnDelete), "Options.OnDelete %q: want one of %q", o.OnDelete, onDeletes)
	bad(o.Legacy > LegacyDelete, "Options.Legacy %d is unknown", o.Legacy)
	bad(!slices.Contains([]Quota{QuotaNone, QuotaGuard, QuotaProject, QuotaHook}, o.Quota), "Options.Quota %q is unknown", o.Quota)
	bad(len(o.Hook) == 0 && (o.HookSnapshots || o.Quota == QuotaHook), "Options.Hook is empty")
	bad(len(o.Hook) > 0 && !filepath.IsAbs(o.Hook[0]), "Options.Hook %q is no absolute path", o.Hook)
	bad(!filepath.IsAbs(o.StateDir), "Options.StateDir %q is no absolute path", o.StateDir)
	bad(o.Half > ControllerHalf|NodeHalf, "Options.Half %d is unknown", o.Half)
	for i := range o.Shares {
		s := &o.Shares[i]
		if err := s.check(); err != nil {
			errs = append(errs, fmt.Errorf("nfs: Options.Shares[%d]: %w", i, err))
		}
		bad(slices.ContainsFunc(o.Shares[:i], func(p Share) bool { return p.Name == s.Name || p.same(*s) }),
			"Options.Shares: two are called %s, or are one", s.Name)
		bad(o.Quota == QuotaProject && s.LocalDir == "", "Options.Shares: %s has no LocalDir, which Quota %q needs", s.Name, o.Quota)
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
