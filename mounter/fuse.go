package mounter

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// ServerHost runs the servers of FUSE file systems (backends.FUSE) where they
// outlive this process: a child of a driver dies with the driver's container,
// whatever it does. Package fusehost has one; another may start a pod or a unit
// of the service manager.
//
// A host knows servers by their ID and runs one for each at most. It serves one
// driver: the IDs are those of volumes.
type ServerHost interface {
	// Start runs a server with a copy of s.Device, and with no other descriptor of
	// this process; what runs with that ID is ended first. It does not wait until the
	// server answers. With s.Run nil it is what the last Start for the ID was given,
	// and backends.NotFoundError if that is not known any more.
	Start(ctx context.Context, s Server) error
	// Find looks for a server. One that is not known is ServerUnknown, and no error.
	Find(ctx context.Context, id string) (ServerStatus, error)
	// Stop ends a server, be it hung, and forgets it, with its secrets. When it
	// returns without an error the server does not run. One that is not known is no
	// error.
	Stop(ctx context.Context, id string) error
}

// ServerWatcher is a [ServerHost] that tells of servers that end.
type ServerWatcher interface {
	// Watch calls ended for each, also for those that had ended before, until ctx
	// ends or the host cannot be reached any more; it is then called again.
	Watch(ctx context.Context, ended func(ServerStatus)) error
}

// Server is what a ServerHost is to run.
type Server struct {
	ID     string
	Device *os.File       // /dev/fuse, mounted; stays the caller's
	Run    *backends.FUSE // nil: as the last time
}

// ServerState says whether a server runs.
type ServerState string

// States of a server.
const (
	ServerUnknown ServerState = "unknown"
	ServerRunning ServerState = "running"
	ServerExited  ServerState = "exited"
)

// ServerStatus is what a host knows of a server.
type ServerStatus struct {
	ID      string
	State   ServerState
	Started time.Time
	PID     int    // where it runs
	Exit    string // how it ended: "exit status 1", "signal: killed"
	Output  string // its last lines, without its secrets
}

func (s ServerStatus) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "its server is %s", s.State)
	if s.Exit != "" {
		fmt.Fprintf(&b, " (%s)", s.Exit)
	}
	if s.Output != "" {
		fmt.Fprintf(&b, "; it wrote: %s", s.Output)
	}
	return b.String()
}

// FUSEKernel is a [Kernel] that can mount FUSE file systems. This machine's is one.
type FUSEKernel interface {
	// MountFUSE opens /dev/fuse and mounts it. The mount is dead when all copies of
	// the file are closed.
	MountFUSE(ctx context.Context, m FUSEMountRequest) (*os.File, error)
	// AbortFUSE ends the connection of the FUSE mount at path, which has this device
	// number: whoever waits for its server gets an error. What the kernel has not
	// given to the server yet is lost.
	AbortFUSE(path string, dev uint64) error
	// Detach takes the topmost mount off path, busy or not.
	Detach(path string) (was bool, err error)
}

// FUSEMountRequest is one mount to make.
type FUSEMountRequest struct {
	Source, FSType, Target string
	Options                []string
	ReadOnly               bool
	IDMap                  []backends.IDMap
}

// serving is what the engine keeps in memory of FUSE volumes.
type serving struct {
	probes flights[struct{}]

	mu      sync.Mutex
	run     map[string]*backends.FUSE // by volume: what its server was started with
	healing map[string]bool           // by volume, in the background
	ctx     context.Context           // of all background work; nil: there is none
	stop    context.CancelFunc
	wait    sync.WaitGroup
}

const (
	defaultServerStart  = 30 * time.Second
	defaultServerAnswer = 5 * time.Second
)

// fuseMountOptions are what the kernel knows besides the options of every mount.
var fuseMountOptions = []string{
	"allow_other", "default_permissions", "max_read", "context", "fscontext", "defcontext", "rootcontext",
}

// fuseOptions are the options of the mount: the backend's, and of the CO's those
// that are meant for the kernel. None of them can hold a secret, so that they can
// be recorded.
func fuseOptions(f *backends.FUSE, co []string) ([]string, error) {
	var all []string
	add := func(list []string, skip bool) error {
		if _, err := mnt.ParseOptions(list); err != nil { // for what it refuses
			return err
		}
		for _, w := range words(list) {
			if isKernelOption(w) {
				if !slices.Contains(all, w) {
					all = append(all, w)
				}
				continue
			}
			if key, _, _ := strings.Cut(w, "="); !skip {
				return fmt.Errorf("%w: mount option %q is none that the kernel has for FUSE; one of the program's belongs to its arguments (FUSE.TakesFlags)", backends.ErrInvalid, key)
			}
		}
		return nil
	}
	if err := add(f.Options, false); err != nil {
		return nil, err
	}
	return all, add(co, f.TakesFlags)
}

// words cuts elements of several options, where commas in quotes do not count.
func words(list []string) []string {
	quoted := false
	return strings.FieldsFunc(strings.Join(list, ","), func(c rune) bool {
		quoted = quoted != (c == '"')
		return c == ',' && !quoted
	})
}

// isKernelOption reports whether a word is for the kernel and not for the server.
func isKernelOption(word string) bool {
	key, _, _ := strings.Cut(word, "=")
	if slices.Contains(fuseMountOptions, key) {
		return true
	}
	o, err := mnt.ParseOptions([]string{word})
	return err == nil && o.Data == ""
}

// checkFUSE refuses a description that cannot be used.
func (e *Engine) checkFUSE(f *backends.FUSE) error {
	_, can := e.kernel.(FUSEKernel)
	switch {
	case e.opts.Servers == nil:
		return refuse("the backend gave a FUSE file system, and Options.Servers, which would run its server, is not set")
	case !can:
		return refuse("the backend gave a FUSE file system, and the kernel in Options.Kernel cannot mount one")
	case !filepath.IsAbs(f.Path):
		return refuse("the backend gave a FUSE server %q, which is no absolute path", f.Path)
	case f.Subtype == "" || strings.ContainsFunc(f.Subtype, notInType):
		return refuse("the backend gave FUSE subtype %q; letters, digits, - and _ are one", f.Subtype)
	case f.Source == "":
		return refuse("the backend gave a FUSE file system without a source")
	}
	return nil
}

func notInType(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
}
