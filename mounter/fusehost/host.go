package fusehost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// Options of a [Host]. The zero value of each field is a sensible default.
type Options struct {
	Logger *slog.Logger  // nil: slog.Default()
	Grace  time.Duration // between SIGTERM and SIGKILL; 0: 5 s
	Max    int           // servers at a time; 0: 1000
}

const (
	defaultGrace = 5 * time.Second
	defaultMax   = 1000
	reapWait     = 5 * time.Second // for a process after SIGKILL
)

// Host runs servers as its children. It is a [mounter.ServerHost] itself, for the
// process that it is in.
type Host struct {
	log     *slog.Logger
	grace   time.Duration
	max     int
	starter starter

	mu       sync.Mutex
	closing  bool
	servers  map[string]*server
	watchers map[chan mounter.ServerStatus]bool
}

var (
	_ mounter.ServerHost    = (*Host)(nil)
	_ mounter.ServerWatcher = (*Host)(nil)
)

// server is one ID.
type server struct {
	id string
	op sync.Mutex // one call at a time

	mu  sync.Mutex
	run *backends.FUSE // what it was started with last
	p   *process       // nil: never started
}

// New is a host without servers.
func New(o *Options) *Host {
	if o == nil {
		o = &Options{}
	}
	h := &Host{log: o.Logger, grace: o.Grace, max: o.Max, servers: map[string]*server{}, watchers: map[chan mounter.ServerStatus]bool{}}
	if h.log == nil {
		h.log = slog.Default()
	}
	if h.grace <= 0 {
		h.grace = defaultGrace
	}
	if h.max <= 0 {
		h.max = defaultMax
	}
	return h
}

// Start implements [mounter.ServerHost].
func (h *Host) Start(ctx context.Context, s mounter.Server) error {
	sv, err := h.slot(s)
	if err != nil {
		return err
	}
	defer sv.op.Unlock()
	if err := h.end(ctx, sv); err != nil {
		return err
	}
	sv.mu.Lock()
	run := s.Run
	if run == nil {
		run = sv.run
	}
	sv.mu.Unlock()
	if run == nil {
		return notKnown(s.ID)
	}
	p, err := h.start(s.ID, run, s.Device)
	if err != nil {
		return fmt.Errorf("start server of %q: %w", s.ID, err)
	}
	sv.mu.Lock()
	sv.run, sv.p = run, p
	sv.mu.Unlock()
	h.log.InfoContext(ctx, "server started", "id", s.ID, "path", run.Path, "pid", p.pid)
	return nil
}

const kindServer backends.Kind = "FUSE server"

func notKnown(id string) error {
	return &backends.NotFoundError{Kind: kindServer, ID: id}
}

// slot finds the entry of an ID or makes one, and locks it. One that Stop has taken
// out meanwhile is not used.
func (h *Host) slot(s mounter.Server) (*server, error) {
	if s.ID == "" || s.Device == nil {
		return nil, fmt.Errorf("%w: a server without an ID or a descriptor", backends.ErrInvalid)
	}
	for {
		sv, err := h.entry(s)
		if err != nil {
			return nil, err
		}
		sv.op.Lock()
		h.mu.Lock()
		is := h.servers[s.ID] == sv
		h.mu.Unlock()
		if is {
			return sv, nil
		}
		sv.op.Unlock()
	}
}

func (h *Host) entry(s mounter.Server) (*server, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch sv := h.servers[s.ID]; {
	case h.closing:
		return nil, fmt.Errorf("%w: the host ends", backends.ErrUnavailable)
	case sv != nil:
		return sv, nil
	case s.Run == nil:
		return nil, notKnown(s.ID)
	case len(h.servers) >= h.max:
		return nil, fmt.Errorf("%w: the host has %d servers already", backends.ErrUnavailable, h.max)
	}
	sv := &server{id: s.ID}
	h.servers[s.ID] = sv
	return sv, nil
}

func (h *Host) start(id string, run *backends.FUSE, dev *os.File) (*process, error) {
	c, err := newCommand(run, dev)
	if err != nil {
		return nil, err
	}
	p, err := h.starter.start(c)
	if err != nil {
		return nil, err
	}
	go func() {
		p.reap()
		st := p.status(id)
		h.log.Warn("server ended", "id", id, "pid", p.pid, "exit", st.Exit)
		h.tell(st)
	}()
	return p, nil
}

// tell hands news to all watchers; one that does not listen loses its channel, and
// asks anew.
func (h *Host) tell(s mounter.ServerStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		select {
		case w <- s:
		default:
			delete(h.watchers, w)
			close(w)
		}
	}
}

// Find implements [mounter.ServerHost].
func (h *Host) Find(_ context.Context, id string) (mounter.ServerStatus, error) {
	h.mu.Lock()
	sv := h.servers[id]
	h.mu.Unlock()
	if sv == nil {
		return mounter.ServerStatus{ID: id, State: mounter.ServerUnknown}, nil
	}
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if sv.p == nil {
		return mounter.ServerStatus{ID: id, State: mounter.ServerUnknown}, nil
	}
	return sv.p.status(id), nil
}

// Stop implements [mounter.ServerHost].
func (h *Host) Stop(ctx context.Context, id string) error {
	h.mu.Lock()
	sv := h.servers[id]
	h.mu.Unlock()
	if sv == nil {
		return nil
	}
	sv.op.Lock()
	defer sv.op.Unlock()
	if err := h.end(ctx, sv); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.servers[id] == sv {
		delete(h.servers, id)
	}
	return nil
}

// end ends what runs of a server.
func (h *Host) end(ctx context.Context, sv *server) error {
	sv.mu.Lock()
	p := sv.p
	sv.mu.Unlock()
	if p == nil || p.ended() {
		return nil
	}
	if err := p.end(ctx, h.grace, reapWait); err != nil {
		return fmt.Errorf("end server of %q: %w", sv.id, err)
	}
	return nil
}

// Watch implements [mounter.ServerWatcher].
func (h *Host) Watch(ctx context.Context, ended func(mounter.ServerStatus)) error {
	news := make(chan mounter.ServerStatus, 2*h.max)
	h.mu.Lock()
	h.watchers[news] = true
	known := make([]*server, 0, len(h.servers))
	for _, sv := range h.servers {
		known = append(known, sv)
	}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, news)
	}()
	for _, sv := range known {
		if st, err := h.Find(ctx, sv.id); err == nil && st.State == mounter.ServerExited {
			ended(st)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case st, ok := <-news:
			if !ok {
				return errors.New("too slow a watcher")
			}
			ended(st)
		}
	}
}

// Close ends all servers, at the same time, and starts no more.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closing = true
	var all []string
	for id := range h.servers {
		all = append(all, id)
	}
	h.mu.Unlock()
	slices.Sort(all)
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, id := range all {
		wg.Go(func() { errs[i] = h.Stop(context.Background(), id) })
	}
	wg.Wait()
	h.starter.close()
	return errors.Join(errs...)
}
