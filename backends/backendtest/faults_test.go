package backendtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
)

// fault is planted in a backend that is otherwise right. opens counts how often
// the storage was opened.
type fault struct {
	name  string
	by    string // the check that finds it
	plant func(s *spoiled, opens int)
}

// volumeFaults are of the core.
var volumeFaults = []fault{
	{"the fingerprint is lost at the next start", "volume/fingerprint", func(s *spoiled, opens int) {
		s.volume = func(ctx context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.Volume(ctx, req)
			if err == nil && opens > 1 {
				v.Fingerprint = ""
			}
			return v, err
		}
	}},
	{"a half-made volume is never finished", "create volume/cut", func(s *spoiled, _ int) {
		s.create = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			if s.half(req.Name) {
				return nil, fmt.Errorf("%w: it is being made", backends.ErrPending)
			}
			return s.Backend.CreateVolume(ctx, req)
		}
	}},
	{"a half-made volume is found", "create volume/cut", func(s *spoiled, _ int) {
		s.find = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			if id, _ := s.Backend.VolumeID(req); s.half(req.Name) {
				return &backends.Volume{ID: id, Name: req.Name, Capacity: req.Size}, nil
			}
			return s.Backend.FindVolume(ctx, req)
		}
	}},
	{"a half-made volume is not deleted", "create volume/cut and undone", func(s *spoiled, _ int) {
		s.remove = func(ctx context.Context, req backends.DeleteVolumeRequest) error {
			if _, err := s.Backend.Volume(context.Background(), backends.VolumeRequest{ID: req.ID}); isUnavailable(err) {
				return err
			}
			return s.Backend.DeleteVolume(ctx, req)
		}
	}},
	{"a cancelled delete says that it is done", "delete volume/cut", func(s *spoiled, _ int) {
		s.remove = func(ctx context.Context, req backends.DeleteVolumeRequest) error {
			if err := s.Backend.DeleteVolume(ctx, req); ctx.Err() == nil {
				return err
			}
			return backends.VolumeNotFound(req.ID)
		}
	}},
	{"a cancelled create says that it was refused", "create volume/cut", func(s *spoiled, _ int) {
		s.create = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.CreateVolume(ctx, req)
			if err != nil && ctx.Err() != nil {
				err = fmt.Errorf("%w: %w", backends.ErrInvalid, err)
			}
			return v, err
		}
	}},
	{"a volume is found only by an equal request", "volume/changed arguments", func(s *spoiled, _ int) {
		s.find = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.FindVolume(ctx, req)
			if err == nil && v.Capacity != req.Size {
				return nil, backends.VolumeNotFound(req.Name)
			}
			return v, err
		}
	}},
	{"a volume is found only with its snapshot", "missing/source", func(s *spoiled, _ int) {
		s.find = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.FindVolume(ctx, req)
			if err == nil && v.Source.SnapshotID != "" {
				_, err = s.Backend.Snapshot(ctx, backends.SnapshotRequest{ID: v.Source.SnapshotID})
			}
			return v, err
		}
	}},
	{"not found, and nobody says what", "missing/volume", func(s *spoiled, _ int) {
		s.volume = func(ctx context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.Volume(ctx, req)
			if errors.Is(err, backends.ErrNotFound) {
				err = backends.ErrNotFound
			}
			return v, err
		}
	}},
	{"not found is the pool", "delete volume/twice", func(s *spoiled, _ int) {
		s.remove = func(ctx context.Context, req backends.DeleteVolumeRequest) error {
			err := s.Backend.DeleteVolume(ctx, req)
			if errors.Is(err, backends.ErrNotFound) {
				err = backends.VolumeNotFound("pool")
			}
			return err
		}
	}},
	{"an ID is cleaned as a path", "names/an ID that is none", func(s *spoiled, _ int) {
		s.remove = func(ctx context.Context, req backends.DeleteVolumeRequest) error {
			req.ID = path.Base(req.ID)
			return s.Backend.DeleteVolume(ctx, req)
		}
	}},
	{"an ID ends at a NUL", "names/an ID that is none", func(s *spoiled, _ int) {
		s.volume = func(ctx context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
			req.ID, _, _ = strings.Cut(req.ID, "\x00")
			return s.Backend.Volume(ctx, req)
		}
	}},
	{"the context changes", "volume/context", func(s *spoiled, _ int) {
		n := 0
		s.volume = func(ctx context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.Volume(ctx, req)
			if n++; err == nil {
				v.Context["n"] = strconv.Itoa(n)
			}
			return v, err
		}
	}},
	{"the context is shared with the caller", "volume/context", func(s *spoiled, _ int) {
		kept := map[string]map[string]string{}
		s.volume = func(ctx context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.Volume(ctx, req)
			if err != nil {
				return v, err
			}
			if kept[v.ID] == nil {
				kept[v.ID] = v.Context
			}
			v.Context = kept[v.ID]
			return v, nil
		}
	}},
	{"a secret in an error", "secrets/in errors", func(s *spoiled, _ int) {
		s.volume = func(ctx context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.Volume(ctx, req)
			if password, _ := req.Secrets.Lookup("canary"); err != nil {
				err = fmt.Errorf("login with %q: %w", password, err)
			}
			return v, err
		}
	}},
	{"a secret in the context", "create volume/twice", func(s *spoiled, _ int) {
		s.create = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.CreateVolume(ctx, req)
			if err == nil {
				v.Context["password"], _ = req.Secrets.Lookup("canary")
			}
			return v, err
		}
	}},
	{"long names are cut", "names/any name is a volume", func(s *spoiled, _ int) { s.rename(func(n string) string { return n[:min(len(n), 100)] }) }},
	{"names are folded", "names/any name is a volume", func(s *spoiled, _ int) { s.rename(strings.ToLower) }},
	{"names are paths", "names/any name is a volume", func(s *spoiled, _ int) { s.rename(path.Clean) }},
	{"sizes are rounded up above the limit", "sizes/at the limits", func(s *spoiled, _ int) {
		s.create = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			req.Size, req.Range.Limit = req.Size+4096, 0
			return s.Backend.CreateVolume(ctx, req)
		}
	}},
	{"no space, and something is left", "sizes/too much", func(s *spoiled, _ int) {
		s.create = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.CreateVolume(ctx, req)
			if err != nil && req.Size > 1<<40 {
				req.Size = 1 << 20
				_, made := s.Backend.CreateVolume(ctx, req)
				err = errors.Join(err, made)
			}
			return v, err
		}
	}},
	{"another ID than was said", "volume/ID beforehand", func(s *spoiled, _ int) {
		s.volumeID = func(req backends.CreateVolumeRequest) (string, error) { return "v-" + strconv.Itoa(len(req.Name)), nil }
	}},
	{"checking makes the volume", "volume/check changes nothing", func(s *spoiled, _ int) {
		s.check = func(ctx context.Context, req backends.CheckVolumeRequest) error {
			_, err := s.Backend.CreateVolume(ctx, backends.CreateVolumeRequest{Name: "pvc-1", Size: req.Size})
			return err
		}
	}},
	{"a start removes what is finished", "volume/recover", func(s *spoiled, _ int) {
		s.recovering = func(ctx context.Context) error {
			vols, _, err := s.Backend.ListVolumes(ctx, backends.ListVolumesRequest{Page: backends.Page{Limit: 1}})
			for _, v := range vols {
				err = errors.Join(err, s.Backend.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: v.ID}))
			}
			return err
		}
	}},
	{"available is less than nothing", "sizes/capacity", func(s *spoiled, _ int) {
		s.capacity = func(ctx context.Context, req backends.CapacityRequest) (backends.Capacity, error) {
			have, err := s.Backend.Capacity(ctx, req)
			have.Available -= 1 << 62
			return have, err
		}
	}},
	{"available grows with what is used", "sizes/capacity", func(s *spoiled, _ int) {
		s.capacity = func(ctx context.Context, req backends.CapacityRequest) (backends.Capacity, error) {
			have, err := s.Backend.Capacity(ctx, req)
			have.Available = 1<<50 - have.Available
			return have, err
		}
	}},
	{"MaxVolume is not the most", "sizes/of the bounds", func(s *spoiled, _ int) {
		s.capacity = func(ctx context.Context, req backends.CapacityRequest) (backends.Capacity, error) {
			have, err := s.Backend.Capacity(ctx, req)
			have.MaxVolume /= 4
			return have, err
		}
	}},
	{"a new volume is ill", "health/volume", func(s *spoiled, _ int) {
		s.health = func(context.Context, backends.VolumeRequest) ([]backends.Health, error) {
			return []backends.Health{{Status: backends.HealthDegraded, Reason: "New"}}, nil
		}
	}},
	{"healthy volumes are in the list of the ill", "health/list", func(s *spoiled, _ int) {
		s.listHealth = func(ctx context.Context, req backends.ListVolumeHealthRequest) ([]backends.VolumeHealth, string, error) {
			vols, next, err := s.Backend.ListVolumes(ctx, backends.ListVolumesRequest{Page: req.Page})
			var list []backends.VolumeHealth
			for _, v := range vols {
				list = append(list, backends.VolumeHealth{ID: v.ID})
			}
			return list, next, err
		}
	}},
}

// half tells whether the volume of this name is half made.
func (s *spoiled) half(name string) bool {
	id, _ := s.Backend.VolumeID(backends.CreateVolumeRequest{Name: name})
	_, err := s.Backend.Volume(context.Background(), backends.VolumeRequest{ID: id})
	return isUnavailable(err)
}

// rename has the backend take another name than it was given.
func (s *spoiled) rename(to func(string) string) {
	s.volumeID = func(req backends.CreateVolumeRequest) (string, error) {
		req.Name = to(req.Name)
		return s.Backend.VolumeID(req)
	}
	s.find = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
		given := req.Name
		req.Name = to(req.Name)
		v, err := s.Backend.FindVolume(ctx, req)
		if errors.Is(err, backends.ErrNotFound) {
			err = backends.VolumeNotFound(given)
		}
		return unnamed(v), err
	}
	s.create = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
		req.Name = to(req.Name)
		v, err := s.Backend.CreateVolume(ctx, req)
		return unnamed(v), err
	}
}

func unnamed(v *backends.Volume) *backends.Volume {
	if v != nil {
		v.Name = ""
	}
	return v
}

// withFault is the suite on a backend with the fault in it.
func withFault(f fault) Config {
	c := onMem(mem.StoreOptions{Devices: true})
	opens := map[*mem.Store]int{}
	plant := func(b Backend) Backend {
		s := &spoiled{Backend: b.Node.(*mem.Backend)}
		opens[s.Store()]++
		f.plant(s, opens[s.Store()])
		b.Controller, b.Node = s, s
		return b
	}
	own := c
	c.New = func(t testing.TB) Backend { return plant(own.New(t)) }
	c.Reopen = func(t testing.TB, b Backend) Backend { return plant(own.Reopen(t, b)) }
	return c
}

func allFaults() []fault {
	return slices.Concat(volumeFaults, changeFaults, listFaults, dataFaults, copyFaults, nodeFaults)
}

// TestFaults: each makes the check fail that is there for it.
func TestFaults(t *testing.T) {
	if n := len(allFaults()); n < 20 {
		t.Errorf("%d faults", n)
	}
	for _, f := range allFaults() {
		t.Run(f.name, func(t *testing.T) {
			i := slices.IndexFunc(checks(), func(c check) bool { return c.name == f.by })
			if i < 0 {
				t.Fatalf("there is no check %q", f.by)
			}
			r := record(t, checks()[i], withFault(f))
			if len(r.failures) == 0 {
				t.Fatalf("%s did not find it; skipped: %s", f.by, r.skipped)
			}
			t.Logf("%s: %s", f.by, strings.TrimSpace(r.failures[0]))
		})
	}
}

// TestNoFault: without one, none does.
func TestNoFault(t *testing.T) {
	cfg := withFault(fault{plant: func(*spoiled, int) {}})
	for _, c := range checks() {
		if c.name == reopenFUSE || c.name == remoteFree {
			continue // TestReopenFUSE, TestRemoteFree: no volume of mem has a server
		}
		if r := record(t, c, cfg); len(r.failures) > 0 || r.skipped != "" {
			t.Errorf("%s: %q, skipped: %s", c.name, r.failures, r.skipped)
		}
	}
}

// TestRunFails: what a check finds fails the test that called Run.
func TestRunFails(t *testing.T) {
	const env = "CSIKIT_BACKENDTEST_FAULT"
	if name := os.Getenv(env); name != "" {
		i := slices.IndexFunc(allFaults(), func(f fault) bool { return f.name == name })
		cfg := withFault(fault{plant: func(*spoiled, int) {}})
		if i >= 0 {
			cfg = withFault(allFaults()[i])
		}
		Run(t, cfg)
		return
	}
	for name, want := range map[string]string{"none": "", "tokens are numbers": "TestRunFails/list_volumes/while_others_come_and_go"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRunFails$")
		cmd.Env = append(os.Environ(), env+"="+name)
		out, err := cmd.CombinedOutput()
		if (err != nil) != (want != "") || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, want %q\n%s", name, err, want, out)
		}
	}
}
