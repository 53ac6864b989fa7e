package csidriver

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/csikit/csikit/backends"
)

// checkVolume checks a volume that a backend gave before it is sent on.
func checkVolume(t *backends.Traits, v *backends.Volume) error {
	switch {
	case v == nil:
		return badAnswer("no volume and no error")
	case v.ID == "":
		return badAnswer("a volume without an ID")
	case !fits(v.ID, maxString):
		return badAnswer("volume ID %.200q: more than %d bytes, or not UTF-8", v.ID, maxString)
	case v.Capacity < 0:
		return badAnswer("volume %q has a capacity of %d bytes", v.ID, v.Capacity)
	case v.Source.SnapshotID != "" && v.Source.VolumeID != "":
		return badAnswer("volume %q was made of a snapshot and of a volume", v.ID)
	case !fits(v.Source.SnapshotID, maxString) || !fits(v.Source.VolumeID, maxString):
		return badAnswer("volume %q has a content source of more than %d bytes, or not UTF-8", v.ID, maxString)
	case !smallMap(v.Context):
		return badAnswer("the context of volume %q has more than %d bytes, or is not UTF-8", v.ID, maxMap)
	}
	return checkPlaces(t, v)
}

func checkPlaces(t *backends.Traits, v *backends.Volume) error {
	if len(v.Topology) > 0 && len(t.TopologyKeys) == 0 {
		return badAnswer("volume %q has a topology, and Traits.TopologyKeys is empty", v.ID)
	}
	for _, s := range v.Topology {
		if len(s) == 0 {
			return badAnswer("volume %q has an empty topology", v.ID)
		}
		if err := checkSegments(t, s); err != nil {
			return badAnswer("volume %q: %w", v.ID, err)
		}
	}
	return nil
}

// fits is what a string of an answer must be: gRPC cannot send what is not
// UTF-8, and would say so with a code that ends the CO's retries.
func fits(s string, limit int) bool { return len(s) <= limit && utf8.ValidString(s) }

func smallMap(m map[string]string) bool {
	total := 0
	for k, v := range m {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return false
		}
		total += len(k) + len(v)
	}
	return total <= maxMap
}

// minLeak is how long a secret value must be to be looked for in a context:
// "true" and "admin" stand there by right.
const minLeak = 8

// checkNoSecrets refuses a context that repeats a secret of the request: CSI
// keeps contexts where anybody can read them.
func checkNoSecrets(v *backends.Volume, secrets backends.Secrets) error {
	for _, k := range secrets.Keys() {
		value, _ := secrets.Lookup(k)
		if len(value) < minLeak {
			continue
		}
		for field, c := range v.Context {
			if c == value {
				return badAnswer("context key %q of volume %q repeats secret %q", field, v.ID, k)
			}
		}
	}
	return nil
}

// checkMade checks a volume that was just made against the request for it.
func checkMade(t *backends.Traits, v *backends.Volume, req *backends.CreateVolumeRequest) error {
	if err := checkVolume(t, v); err != nil {
		return err
	}
	switch {
	case !inRange(v.Capacity, req.Range):
		return badAnswer("volume %q was made with %d bytes, asked for was [%d, %d]", v.ID, v.Capacity, req.Range.Required, req.Range.Limit)
	case !reachable(v.Topology, req.Topology):
		return badAnswer("volume %q is in none of the requisite topologies", v.ID)
	case !sameFingerprint(v.Fingerprint, req.Fingerprint):
		// Each retry would be refused as another volume's.
		return badAnswer("volume %q was made with fingerprint %q, asked for was %q", v.ID, v.Fingerprint, req.Fingerprint)
	}
	return checkNoSecrets(v, req.Secrets)
}

// differs names the field by which an existing volume is not what is asked for;
// "" when it is.
func differs(v *backends.Volume, req *backends.CreateVolumeRequest, source backends.ContentSource) (field, detail string) {
	switch {
	case !inRange(v.Capacity, req.Range):
		return "capacity_range", fmt.Sprintf("it has %d bytes", v.Capacity)
	case v.Source != source:
		return "volume_content_source", "it was made of something else"
	case !sameFingerprint(v.Fingerprint, req.Fingerprint):
		return "parameters", "it was made with others"
	case !reachable(v.Topology, req.Topology):
		return "accessibility_requirements", "it is in none of the requisite topologies"
	}
	return "", ""
}

// checkExisting answers whether the volume of that name is the one asked for:
// nil, or ErrIncompatible with the field by which it is not.
func (c *controller) checkExisting(ctx context.Context, v *backends.Volume, req *backends.CreateVolumeRequest) error {
	if err := checkVolume(&c.traits, v); err != nil {
		return err
	}
	if field, detail := differs(v, req, backends.ContentSource{}); field != "" {
		return incompatible(req.Name, field, detail)
	}
	err := c.checkByBackend(ctx, v, req)
	if refuses(err) {
		return incompatible(req.Name, "volume_capabilities", err.Error())
	}
	if err != nil {
		return err
	}
	return checkNoSecrets(v, req.Secrets)
}

// refuses tells whether a VolumeChecker says no, and not that it could not look.
func refuses(err error) bool {
	if errors.Is(err, backends.ErrUnavailable) {
		return false
	}
	return errors.Is(err, backends.ErrInvalid) || errors.Is(err, backends.ErrOutOfRange) ||
		errors.Is(err, backends.ErrIncompatible) || errors.Is(err, errNoCapability)
}

func incompatible(name, field, detail string) error {
	return fmt.Errorf("volume %q: %w by its %s: %s", name, backends.ErrIncompatible, field, detail)
}
