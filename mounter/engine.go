package mounter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// Engine is the node half of a driver: it opens volumes with a backend's Node,
// formats, mounts, binds, grows and measures them, and undoes all of that.
// Calls may be concurrent; those for one volume go one after the other.
type Engine struct {
	node     backends.Node
	features backends.NodeFeatures
	opts     Options
	kernel   Kernel
	log      *slog.Logger
	locks    keyLocks
	stats    flights[Stats]
	known    knownStats
	health   flights[[]backends.Health]
	groups   flights[struct{}]
	dirs     flights[fs.FileInfo]
	tools    slots
	unmounts flights[int]
	fuse     serving

	mu    sync.Mutex
	store *store // nil before Start and after Close
	boot  string
}

// New checks the options. Nothing is touched before [Engine.Start].
func New(node backends.Node, o *Options) (*Engine, error) {
	if node == nil {
		return nil, fmt.Errorf("%w: no node", backends.ErrInvalid)
	}
	opts, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("mounter: %w", err)
	}
	return &Engine{
		node: node, features: backends.DetectNode(node), opts: opts, kernel: opts.Kernel, log: opts.Logger, tools: make(slots, opts.MaxTools),
	}, nil
}

// Close gives the state directory back. What is staged stays so.
func (e *Engine) Close() error {
	e.fuse.end()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.store == nil {
		return nil
	}
	s := e.store
	e.store = nil
	return s.close()
}

// InUse names a path at which this node's records have the volume. A volume
// whose record cannot be read counts as used.
func (e *Engine) InUse(id string) (path string, used bool) {
	s := e.records()
	if s == nil {
		return "", false
	}
	if err := s.refused(id); err != nil {
		return filepath.Join(s.dir, string(kindStage)+"-"+shortHash(id)+"-*"), true
	}
	if all := s.of(id); len(all) > 0 {
		return all[0].Path, true
	}
	return "", false
}

// State is what the backend gave with the volume when it was opened here
// (backends.Source), nil when the records do not have it.
func (e *Engine) State(id string) []byte {
	s := e.records()
	if s == nil {
		return nil
	}
	for _, r := range s.of(e.own(s, id)) {
		if r.Kind == kindStage {
			return r.State
		}
	}
	return nil
}

// OwnID is the ID by which the backend knows a volume: for an ephemeral one that
// stands here its own, else the CO's.
func (e *Engine) OwnID(id string) string {
	if s := e.records(); s != nil {
		return e.own(s, id)
	}
	return id
}

// Volumes lists the volumes that the records have on this node.
func (e *Engine) Volumes() []string {
	s := e.records()
	if s == nil {
		return nil
	}
	var ids []string
	for _, r := range s.list(func(*record) bool { return true }) {
		ids = append(ids, r.Volume)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (e *Engine) records() *store {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.store
}

// begin is the start of every call that changes something: the engine must be
// running, the volume and the paths are locked, and the volume's records must be
// understood.
func (e *Engine) begin(ctx context.Context, id string, paths ...string) (s *store, done func(), err error) {
	if id == "" || !utf8.ValidString(id) {
		return nil, nil, fmt.Errorf("%w: volume id %q", backends.ErrInvalid, id)
	}
	done, err = e.lock(ctx, id, paths)
	if err != nil {
		return nil, nil, err
	}
	if s = e.records(); s == nil {
		err = unavailable("the node engine is not running")
	} else {
		err = s.refused(id)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return s, done, nil
}

// lock keeps other calls off the volume, and other volumes off the paths. The
// volume always comes first, and paths are in order, so that no two calls wait for
// each other.
func (e *Engine) lock(ctx context.Context, id string, paths []string) (done func(), err error) {
	keys := []string{volumeKey(id)}
	for _, p := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		keys = append(keys, fmt.Sprintf("path %q", p))
	}
	var held []func()
	done = func() {
		for _, unlock := range slices.Backward(held) {
			unlock()
		}
	}
	for _, key := range keys {
		unlock, err := e.locks.lock(ctx, key)
		if err != nil {
			done()
			return nil, err
		}
		held = append(held, unlock)
	}
	return done, nil
}

// step tells whoever watches what comes next, and ends the call here when its
// context has ended: between steps is where it can be taken up again.
func (e *Engine) step(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("before %q: %w", name, contextError(ctx))
	}
	backends.Progress(ctx, name)
	e.opts.Observer(name)
	return nil
}

func contextError(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return ctx.Err()
}

// cleanPath accepts an absolute path that names something below the root.
func cleanPath(what, path string) (string, error) {
	p := filepath.Clean(path)
	if !filepath.IsAbs(path) || p == "/" || strings.ContainsRune(path, 0) || !utf8.ValidString(path) {
		return "", fmt.Errorf("%w: %s %q is not an absolute path below /", backends.ErrInvalid, what, path)
	}
	return p, nil
}

// missing reports whether err says that there is nothing at a path, nor can be.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG)
}

// mountsAt is the stack at path, after the cheap question whether there is one.
func (e *Engine) mountsAt(path string) ([]mnt.Info, error) {
	is, err := e.kernel.IsMountPoint(path)
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, unavailable("look at %s: %w", path, err)
	case !is:
		return nil, nil
	}
	mounts, err := e.kernel.MountsAt(path)
	if err != nil {
		return nil, unavailable("look at %s: %w", path, err)
	}
	if len(mounts) == 0 {
		return nil, unavailable("look at %s: a mount point that the mount table does not show", path)
	}
	return mounts, nil
}
