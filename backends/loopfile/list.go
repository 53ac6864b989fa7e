package loopfile

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/csikit/csikit/backends"
)

// ListVolumes lists by ID; a token is the last ID of the page before, and so
// stands for a position that creates and deletes do not move.
//
// A volume whose meta.json cannot be read is listed all the same, by what its
// directory's name tells: its ID. To leave it out would tell the CO that it is
// gone, and to fail would hide all others behind one damaged file. The log and
// each call for the volume itself name the file.
func (b *Backend) ListVolumes(_ context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return nil, "", err
	}
	defer done()
	dirs, err := p.volumesAfter(b, req.Page.Token)
	if err != nil {
		return nil, "", err
	}
	var vols []*backends.Volume
	for _, dir := range dirs {
		if req.Page.Limit > 0 && len(vols) == req.Page.Limit {
			return vols, vols[len(vols)-1].ID, nil
		}
		v, err := p.volume(dir)
		switch {
		case err == nil && v.meta.Ephemeral != "": // its pod's, and no CO's to delete
		case err == nil:
			vols = append(vols, b.public(v))
		case errors.Is(err, backends.ErrNotFound): // deleted meanwhile
		default:
			b.log.Error("volume cannot be read", "err", err)
			vols = append(vols, &backends.Volume{ID: makeID(p.info.Name, dir), Topology: []backends.Segments{b.segments()}})
		}
	}
	return vols, "", nil
}

// volumesAfter are the directories that come after the volume that a token names.
func (p *pool) volumesAfter(b *Backend, token string) ([]string, error) {
	dirs, err := p.volumes(b)
	if err != nil || token == "" {
		return dirs, err
	}
	name, dir, ok := splitID(token)
	if !ok || name != p.info.Name {
		return nil, fmt.Errorf("%w: %q", backends.ErrStaleToken, token)
	}
	start, found := slices.BinarySearch(dirs, dir)
	if found {
		start++
	}
	return dirs[start:], nil
}

// volumes are the directories of v in order.
func (p *pool) volumes(b *Backend) ([]string, error) {
	names, err := readNames(p.root, volumesDir)
	if err != nil {
		return nil, unavailable(p.dir, err)
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		if dirName.MatchString(n) {
			return false
		}
		b.log.Warn("not a volume, left alone", "pool", p.dir, "name", n)
		return true
	})
	slices.Sort(names)
	return names, nil
}
