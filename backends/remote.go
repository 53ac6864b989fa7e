package backends

import "context"

// RemoteMounter does, where it can be ended, what may hang on a [Mount] that is
// Remote: its calls return although the server is dead. csikit itself makes only
// those system calls on such a mount that ask no server (bind, read-only, statx
// without a question). A backend that has it needs a [StatsReporter], too; without it
// csikit mounts and unmounts by itself, and a thread of the driver waits.
type RemoteMounter interface {
	// MountRemote mounts at Target, an empty directory of the node's own. When it
	// returns an error nothing is mounted, and nothing that may come to be is under way.
	MountRemote(ctx context.Context, req MountRemoteRequest) error
	// UnmountRemote takes everything off a path. It returns when the path is free:
	// what the file system still has to write to its server, or to tell it, is not
	// waited for. A mount in use is ErrInUse, and stays.
	UnmountRemote(ctx context.Context, req UnmountRemoteRequest) error
	// GroupRemote gives the root of a mounted volume to a group, with the setgid bit
	// and all rights of the group; once, so that its users may take rights back.
	GroupRemote(ctx context.Context, req GroupRemoteRequest) error
	// CheckRemote asks the server about the root of a mounted volume. ErrDataLoss says
	// that it does not know it any more (ESTALE), so that only a new mount helps; every
	// other error says nothing of the mount.
	CheckRemote(ctx context.Context, req CheckRemoteRequest) error
}

// MountRemoteRequest is a mount to make.
type MountRemoteRequest struct {
	ID       string
	Mount    Mount
	Flags    Flags // the CO's, which come after Mount.Options
	Target   string
	ReadOnly bool
}

// UnmountRemoteRequest names a path.
type UnmountRemoteRequest struct {
	Path   string
	Detach bool // although it is in use (MNT_DETACH)
}

// GroupRemoteRequest names a mounted volume and a group.
type GroupRemoteRequest struct {
	ID, Path string
	GID      int
	State    []byte
}

// CheckRemoteRequest names a mounted volume.
type CheckRemoteRequest struct {
	ID, Path string
	State    []byte
}
