package backends

import "context"

// FUSE is a file system that a program serves. csikit opens /dev/fuse and mounts
// it; the program is run elsewhere (mounter.Options.Servers), gets the open
// descriptor, and needs no privilege to mount anything. It must stay in the
// foreground: when it ends, the volume is healed with a new one.
//
// In Args and Vars "{fd}" stands for the number of the descriptor, in Args
// "{file:NAME}" for the path of Files[NAME]. Programs that use libfuse 3.3 or
// newer, or go-fuse, take "/dev/fd/{fd}" where they want the mount point:
//
//	Path: "/usr/bin/squashfuse", Args: []string{"-f", image, "/dev/fd/{fd}"}
type FUSE struct {
	// Source and Subtype are what the mount table shows: SOURCE of type
	// fuse.SUBTYPE. No secrets.
	Source, Subtype string
	// Options of the mount: allow_other (pods that are not root need it),
	// default_permissions, max_read=BYTES, and those of every mount (nosuid, noatime).
	Options []string
	// TakesFlags says that the program was given those mount flags of the CO's
	// (Capability.Flags) that the kernel does not know; otherwise they are refused.
	TakesFlags bool

	Path  string            // absolute, where the program runs
	Args  []string          // without the name of the program; no secrets
	Vars  map[string]string // environment that is no secret
	Env   Secrets           // environment that is
	Files map[string]Secret // each a file that only the program sees
	// UID and GID are whose the program is; 0: the host's.
	UID, GID uint32
}

// FUSEReopener says once more how a volume is served: its server has died, and
// neither this driver, which was started anew, nor the host of the servers knows
// it any more. Without it such a volume is healed when it is staged again.
type FUSEReopener interface {
	ReopenFUSE(ctx context.Context, req ReopenFUSERequest) (*FUSE, error)
}

// ReopenFUSERequest names a volume that is open.
type ReopenFUSERequest struct {
	ID    string
	State []byte
	// Secrets are those of the publish that found it dead; mostly there are none.
	Secrets Secrets
}
