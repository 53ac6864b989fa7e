package backendtest

import (
	"context"
	"errors"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
)

// served is a mem whose volumes a FUSE server serves, which mem itself has not.
type served struct {
	*mem.Backend
	again string // the program that a reopened volume is served by
}

const server = "/usr/bin/server"

func (s served) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	src, err := s.Backend.OpenVolume(ctx, req)
	if err != nil {
		return nil, err
	}
	return &backends.Source{FUSE: &backends.FUSE{Subtype: "server", Path: server, Args: []string{req.ID, "/dev/fd/{fd}"}}, State: src.State}, nil
}

func (s served) ReopenFUSE(_ context.Context, req backends.ReopenFUSERequest) (*backends.FUSE, error) {
	return &backends.FUSE{Subtype: "server", Path: s.again, Args: []string{req.ID, "/dev/fd/{fd}"}}, nil
}

// withServer is the suite on such a backend.
func withServer(again string) Config {
	c := onMem(mem.StoreOptions{})
	serve := func(b Backend) Backend {
		b.Node = served{b.Node.(*mem.Backend), again}
		return b
	}
	own := c
	c.New = func(t testing.TB) Backend { return serve(own.New(t)) }
	c.Reopen = func(t testing.TB, b Backend) Backend { return serve(own.Reopen(t, b)) }
	return c
}

// TestReopenFUSE: the check passes, and finds another server.
func TestReopenFUSE(t *testing.T) {
	for _, c := range checks() {
		if c.name != reopenFUSE {
			continue
		}
		if r := record(t, c, withServer(server)); len(r.failures) > 0 || r.skipped != "" {
			t.Errorf("%q, skipped: %s", r.failures, r.skipped)
		}
		if r := record(t, c, withServer("/usr/bin/another")); len(r.failures) == 0 {
			t.Error("another server is not found")
		}
		return
	}
	t.Error("there is no such check")
}

// far is a mem that unmounts, which mem itself does not.
type far struct {
	*mem.Backend
	err error
}

func (far) MountRemote(context.Context, backends.MountRemoteRequest) error       { return nil }
func (far) CheckRemote(context.Context, backends.CheckRemoteRequest) error       { return nil }
func (far) GroupRemote(context.Context, backends.GroupRemoteRequest) error       { return nil }
func (f far) UnmountRemote(context.Context, backends.UnmountRemoteRequest) error { return f.err }

// TestRemoteFree: the check passes, and finds a path that is free and does not get so.
func TestRemoteFree(t *testing.T) {
	for _, c := range checks() {
		if c.name != remoteFree {
			continue
		}
		for _, err := range []error{nil, errors.New("busy")} {
			cfg := onMem(mem.StoreOptions{})
			own := cfg.New
			cfg.New = func(t testing.TB) Backend {
				b := own(t)
				b.Node = far{b.Node.(*mem.Backend), err}
				return b
			}
			if r := record(t, c, cfg); (len(r.failures) > 0) != (err != nil) || r.skipped != "" {
				t.Errorf("with %v: %q, skipped: %s", err, r.failures, r.skipped)
			}
		}
		return
	}
	t.Error("there is no such check")
}
