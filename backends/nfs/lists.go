package nfs

import (
	"context"
	"slices"
	"strings"
	"sync"
)

// Names of tasks.
const (
	opList     = "list"
	opSnapList = "snap-list"
	opFree     = "free"
	opUsage    = "usage"
	opInspect  = "inspect"
)

type listIn struct {
	where
	After string `json:"after,omitempty"` // a key
	Limit int    `json:"limit"`
	// VolumeID: only snapshots of this one.
	VolumeID string `json:"volumeID,omitempty"`
}

// listed is a marker, or a key alone whose marker cannot be read.
type listed struct {
	Key    string    `json:"key"`
	Marker *marker   `json:"marker,omitempty"`
	Snap   *snapMark `json:"snap,omitempty"`
	Why    string    `json:"why,omitempty"`
}

type listOut struct {
	Entries []listed `json:"entries"`
	More    bool     `json:"more"`
}

// keys are those of a directory's records, in order.
func (s *site) keys(dir string) ([]string, error) {
	names, err := s.root.Names(s.at(dir))
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, name := range names {
		if key, is := strings.CutSuffix(name, ".json"); is && keyRule.MatchString(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// page lists records from after a key on; read gives nil for what is not to be shown.
func (s *site) page(ctx context.Context, dir string, in listIn, read func(key string) (*listed, error)) (out listOut, err error) {
	if err := s.need(); err != nil {
		return out, err
	}
	keys, err := s.keys(dir)
	if err != nil {
		return out, err
	}
	start, found := slices.BinarySearch(keys, in.After)
	if found {
		start++
	}
	for keys = keys[start:]; len(keys) > 0; {
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		some := keys[:min(len(keys), readAhead, in.Limit-len(out.Entries)+1)]
		keys = keys[len(some):]
		for _, e := range s.readSome(some, read) {
			if e == nil {
				continue
			}
			if out.More = len(out.Entries) == in.Limit; out.More {
				return out, nil
			}
			out.Entries = append(out.Entries, *e)
		}
	}
	return out, nil
}

// readAhead is how many records are read at a time: each is a few round trips to the
// server, which wait for nothing but each other.
const readAhead = 32

// readSome reads records, in order; nil for those that are not to be shown.
func (s *site) readSome(keys []string, read func(key string) (*listed, error)) []*listed {
	list := make([]*listed, len(keys))
	var wg sync.WaitGroup
	for i, key := range keys {
		wg.Go(func() {
			e, err := read(key)
			switch {
			case notExist(err): // deleted meanwhile
				return
			case err != nil:
				e = &listed{Why: err.Error()}
			case e == nil:
				return
			}
			e.Key = key
			list[i] = e
			s.progress("listed " + key)
		})
	}
	wg.Wait()
	return list
}

func taskList(ctx context.Context, s *site, in listIn) (listOut, error) {
	return s.page(ctx, dirVolumes, in, func(key string) (*listed, error) {
		m, err := s.marker(key)
		if err != nil || m.State != stateReady || m.Ephemeral != "" || m.Legacy != "" {
			return nil, err
		}
		return &listed{Marker: m}, nil
	})
}

func taskSnapList(ctx context.Context, s *site, in listIn) (listOut, error) {
	return s.page(ctx, dirSnapshots, in, func(key string) (*listed, error) {
		m, err := s.snap(key)
		if err != nil || m.State == stateDeleting || m.Hook && m.State == stateCopying || in.VolumeID != "" && in.VolumeID != m.VolumeID {
			return nil, err
		}
		return &listed{Snap: m}, nil
	})
}

type freeIn struct{ where }

type freeOut struct {
	Total     int64 `json:"total"`
	Available int64 `json:"available"`
}

func taskFree(_ context.Context, s *site, _ freeIn) (out freeOut, err error) {
	out.Total, out.Available, err = s.root.Free()
	return out, err
}

type lookIn struct {
	where
	Key string `json:"key"`
}

// lookOut is what is seen of a volume. Trouble is "", or one of the reasons of health.
type lookOut struct {
	Marker  *marker `json:"marker,omitempty"`
	Trouble string  `json:"trouble,omitempty"`
	Detail  string  `json:"detail,omitempty"`
	Bytes   int64   `json:"bytes,omitempty"` // allocated: of opUsage
}

// taskInspect looks whether the directory of a volume is there.
func taskInspect(_ context.Context, s *site, in lookIn) (out lookOut, err error) {
	if err := s.need(); err != nil {
		return out, err
	}
	m, err := s.marker(in.Key)
	if notExist(err) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	out.Marker = m
	if m.State != stateReady {
		return out, nil
	}
	info, err := s.root.Lstat(m.SubDir)
	switch {
	case notExist(err):
		out.Trouble, out.Detail = reasonMissing, "the directory "+m.SubDir+" is gone"
	case err != nil:
		return out, err
	case !info.Dir() || !s.owns(m, info):
		out.Trouble, out.Detail = reasonForeign, m.SubDir+" is not the directory that the volume was made with"
	}
	return out, nil
}

// taskUsage measures a volume, which may take long.
func taskUsage(ctx context.Context, s *site, in lookIn) (lookOut, error) {
	out, err := taskInspect(ctx, s, in)
	if err != nil || out.Marker == nil || out.Trouble != "" {
		return out, err
	}
	d, err := s.root.Sub(out.Marker.SubDir)
	if err != nil {
		return out, err
	}
	defer func() { _ = d.Close() }() // read only
	out.Bytes, err = d.Usage(ctx, s.progress)
	return out, err
}
