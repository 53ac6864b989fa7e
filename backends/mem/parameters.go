package mem

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/csikit/csikit/backends"
)

// parameters of a volume. What is mutable can be changed only with a Modifier.
func parameters(modifies bool) []backends.Parameter {
	return []backends.Parameter{
		{Name: "media", Doc: "kind of disk", Values: []string{"ssd", "disk"}, Default: "ssd"},
		{Name: "tier", Doc: "class of service", Values: []string{"standard", "fast"}, Default: "standard", Mutable: modifies},
		{Name: "cache", Doc: "what is cached", Values: []string{"none", "read", "write"}, Mutable: modifies},
	}
}

// mutable is what a new volume remembers of its parameters, in the end.
func (b *Backend) mutable(params, mutable map[string]string) (map[string]string, error) {
	all := make(map[string]string)
	for _, m := range []map[string]string{params, mutable} {
		for _, p := range parameters(b.has("Modifier")) {
			if v, ok := m[p.Name]; ok && p.Mutable {
				all[p.Name] = v
			}
		}
	}
	return all, errorsOf(params, mutable)
}

// errorsOf refuses values, and keys of a patch, that are not known.
func errorsOf(values, patch map[string]string) error {
	known := make(map[string]backends.Parameter)
	for _, p := range parameters(true) {
		known[p.Name] = p
	}
	for _, k := range slices.Sorted(maps.Keys(patch)) {
		if !known[k].Mutable {
			return fmt.Errorf("%w: parameter %q is not one that can be changed", backends.ErrInvalid, k)
		}
	}
	for _, m := range []map[string]string{values, patch} {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if p := known[k]; p.Values != nil && !slices.Contains(p.Values, m[k]) {
				return fmt.Errorf("%w: parameter %q has none of its values %q", backends.ErrInvalid, k, p.Values)
			}
		}
	}
	return nil
}

// CheckVolume refuses parameters that CreateVolume would refuse.
func (b *Backend) CheckVolume(ctx context.Context, req backends.CheckVolumeRequest) error {
	return b.run(ctx, Call{"CheckVolume", checked(req), req}, func(context.Context) error {
		return errorsOf(req.Parameters, req.Mutable)
	})
}

func checked(req backends.CheckVolumeRequest) string {
	if req.Volume == nil {
		return ""
	}
	return req.Volume.ID
}

// ModifyVolume changes what the request names, or nothing.
func (b *Backend) ModifyVolume(ctx context.Context, req backends.ModifyVolumeRequest) error {
	return b.run(ctx, Call{"ModifyVolume", req.ID, req}, func(context.Context) error {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v, err := b.store.volume(req.ID)
		if err != nil {
			return err
		}
		if err := errorsOf(nil, req.Mutable); err != nil {
			return err
		}
		mutable := maps.Clone(v.Mutable) // a list may have the old one
		maps.Copy(mutable, req.Mutable)
		v.Mutable = mutable
		return nil
	})
}
