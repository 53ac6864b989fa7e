package nfs

import (
	"errors"
	"syscall"
)

// What tasks of the node are given.

const (
	opMount   = "mount"
	opUnmount = "unmount"
	opStats   = "statfs"
	opGroup   = "give to group"
	opLook    = "look"
)

// shareTask is a share to be brought to a worker.
type shareTask struct {
	Host    string   `json:"host,omitempty"`
	Source  string   `json:"source,omitempty"`
	Options []string `json:"options,omitempty"`
	Dir     string   `json:"dir,omitempty"` // instead
}

// mountTask is a mount for everybody to see.
type mountTask struct {
	Source, Target string
	Words          []string // as the kernel takes them
	ReadOnly       bool
}

// pathTask is a path where something is mounted.
type pathTask struct {
	Path   string
	GID    int
	Detach bool
	Dir    string // the volume is this directory, so that Path may be no mount
}

// isStale tells the error of a file handle that the server does not know any more.
func isStale(err error) bool { return errors.Is(err, syscall.ESTALE) }
