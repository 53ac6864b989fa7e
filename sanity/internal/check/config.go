package check

import (
	"context"
	"time"
)

// Config is what a run is told.
type Config struct {
	Node, Controller string // gRPC targets
	Only             []string
	FailFast         bool // the first FAIL is the last check

	Block                                             bool
	Parameters, MutableParameters, SnapshotParameters map[string]string
	Secrets                                           map[string]string
	Size, ExpandSize                                  int64
	Many                                              int    // volumes where there are to be many
	AttachLimit                                       bool   // the driver holds to max_volumes_per_node
	OtherNode                                         string // a node that the driver knows, and is not this one
	Seed                                              uint64

	Dir  string // where the paths of the checks are
	Host bool   // what the driver mounts is to be seen here
	PID  int    // of the driver, if its /proc is to be seen here
	Logs func() ([]byte, error)
	// Restart kills the driver (SIGKILL, if it can choose) and starts it again.
	Restart func(context.Context) error

	CallTimeout time.Duration
	// Reproduce is the command that runs one check again.
	Reproduce func(id string) string
}

// Listener is told of each check when it begins and when it has ended.
type Listener interface {
	Begin(id string)
	End(Result)
}
