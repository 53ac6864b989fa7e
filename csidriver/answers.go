package csidriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/csikit/csikit/backends"
)

// checkVolume checks a volume that a backend gave before it is sent on.
func checkVolume(t *backends.Traits, v *backends.Volume) error {
	_, err := measureVolume(t, v)
	return err
}

// overhead is more than protobuf adds to a string, or to a message of them.
const overhead = 10

// measureVolume is checkVolume, and says how many bytes an entry of a list with
// this volume has at most: to look at each map for its size alone is a fifth of
// the time of a list.
func measureVolume(t *backends.Traits, v *backends.Volume) (size int, err error) {
	switch {
	case v == nil:
		return 0, badAnswer("no volume and no error")
	case v.ID == "":
		return 0, badAnswer("a volume without an ID")
	case !fits(v.ID, maxString):
		return 0, badAnswer("volume ID %.200q: more than %d bytes, or not UTF-8", v.ID, maxString)
	case v.Capacity < 0:
		return 0, badAnswer("volume %q has a capacity of %d bytes", v.ID, v.Capacity)
	case v.Source.SnapshotID != "" && v.Source.VolumeID != "":
		return 0, badAnswer("volume %q was made of a snapshot and of a volume", v.ID)
	case v.Source.VolumeID == v.ID:
		return 0, badAnswer("volume %q was made of itself", v.ID)
	case !fits(v.Source.SnapshotID, maxString) || !fits(v.Source.VolumeID, maxString):
		return 0, badAnswer("volume %q has a content source of more than %d bytes, or not UTF-8", v.ID, maxString)
	case slices.ContainsFunc(v.Nodes, func(n string) bool { return n == "" || !fits(n, maxNodeID) }):
		return 0, badAnswer("volume %q is attached to a node without an ID, or with one of more than %d bytes or not UTF-8", v.ID, maxNodeID)
	}
	context, ok := sizeOfMap(v.Context)
	if !ok || context > maxMap {
		return 0, badAnswer("the context of volume %q has more than %d bytes, or is not UTF-8", v.ID, maxMap)
	}
	places, err := measureTopology(t, "volume", v.ID, v.Topology)
	// The entry, the volume, its ID, its capacity and its status; a source in a
	// message in a message.
	size = 5*overhead + len(v.ID) + 3*overhead + len(v.Source.SnapshotID) + len(v.Source.VolumeID) +
		context + 2*overhead*len(v.Context) + places
	for _, n := range v.Nodes {
		size += overhead + len(n)
	}
	return size, err
}

// checkTopology checks the places of a volume or of a snapshot.
func checkTopology(t *backends.Traits, what, id string, places []backends.Segments) error {
	_, err := measureTopology(t, what, id, places)
	return err
}

// measureTopology is checkTopology, and says how many bytes it has at most.
func measureTopology(t *backends.Traits, what, id string, places []backends.Segments) (size int, err error) {
	if len(places) > 0 && len(t.TopologyKeys) == 0 {
		return 0, badAnswer("%s %q has a topology, and Traits.TopologyKeys is empty", what, id)
	}
	for _, s := range places {
		if len(s) == 0 {
			return 0, badAnswer("%s %q has an empty topology", what, id)
		}
		n, err := measureSegments(t, s)
		if err != nil {
			return 0, badAnswer("%s %q: %w", what, id, err)
		}
		size += n + overhead + 2*overhead*len(s)
	}
	return size, nil
}

// fits is what a string of an answer must be: gRPC cannot send what is not
// UTF-8, and would say so with a code that ends the CO's retries.
func fits(s string, limit int) bool { return len(s) <= limit && utf8.ValidString(s) }

func smallMap(m map[string]string) bool {
	size, ok := sizeOfMap(m)
	return ok && size <= maxMap
}

// sizeOfMap is the bytes of keys and values; ok is false when one is not UTF-8.
func sizeOfMap(m map[string]string) (size int, ok bool) {
	for k, v := range m {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return 0, false
		}
		size += len(k) + len(v)
	}
	return size, true
}

// How long a secret value must be to be looked for in a context: "true" and
// "admin" stand there by right, and "password" is a word of many texts.
const (
	minLeak     = 8  // the whole of a context's value
	minLeakPart = 12 // a part of it, as in https://user:password@host
)

// secretWords are how the keys of true secrets end. Others hold addresses and
// names of users as well, which may be parts of a context.
var secretWords = []string{"password", "passphrase", "passwd", "pwd", "secret", "token", "key", "credential", "credentials"}

func saysSecret(key string) bool {
	key = strings.ToLower(key)
	return slices.ContainsFunc(secretWords, func(w string) bool { return strings.HasSuffix(key, w) })
}

// checkNoSecrets refuses a volume whose context repeats a secret of the request.
func checkNoSecrets(v *backends.Volume, secrets backends.Secrets) error {
	if field, key := leak(v.Context, secrets); field != "" {
		return badAnswer("context key %q of volume %q repeats secret %q", field, v.ID, key)
	}
	return nil
}

// leak finds a secret in a context: CSI keeps contexts where anybody can read
// them.
func leak(context map[string]string, secrets backends.Secrets) (field, key string) {
	for _, k := range secrets.Keys() {
		value, _ := secrets.Lookup(k)
		if len(value) < minLeak {
			continue
		}
		inside := len(value) >= minLeakPart && saysSecret(k)
		for f, c := range context {
			if c == value || inside && strings.Contains(c, value) {
				return f, k
			}
		}
	}
	return "", ""
}

// checkMade checks a volume that was just made against the request for it.
func checkMade(t *backends.Traits, v *backends.Volume, req *wanted) error {
	if err := checkVolume(t, v); err != nil {
		return err
	}
	switch {
	case !inRange(v.Capacity, req.Range):
		return badAnswer("volume %q was made with %d bytes, asked for was [%d, %d]", v.ID, v.Capacity, req.Range.Required, req.Range.Limit)
	case v.Capacity != 0 && v.Capacity < req.least:
		return badAnswer("volume %q was made with %d bytes of a source of %d", v.ID, v.Capacity, req.least)
	case v.Source != req.source:
		return badAnswer("volume %q says that it was made of %s, asked for was %s", v.ID, sourceText(v.Source), sourceText(req.source))
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
func differs(v *backends.Volume, req *wanted) (field, detail string) {
	switch {
	case !inRange(v.Capacity, req.Range):
		return "capacity_range", fmt.Sprintf("it has %d bytes", v.Capacity)
	case v.Source != req.source:
		return "volume_content_source", "it was made of " + sourceText(v.Source)
	case !sameMutable(v.Mutable, req.Mutable):
		return "mutable_parameters", "it has others"
	case !sameFingerprint(v.Fingerprint, req.Fingerprint):
		return "parameters", "it was made with others"
	case !reachable(v.Topology, req.Topology):
		return "accessibility_requirements", "it is in none of the requisite topologies"
	}
	return "", ""
}

// checkExisting answers whether the volume of that name is the one asked for:
// nil, or ErrIncompatible with the field by which it is not.
func (c *controller) checkExisting(ctx context.Context, v *backends.Volume, req *wanted) error {
	if err := checkVolume(&c.traits, v); err != nil {
		return err
	}
	if field, detail := differs(v, req); field != "" {
		return incompatible("volume", req.Name, field, detail)
	}
	if err := c.schema.checkMutable(unknownOf(req.Mutable, v.Mutable)); err != nil {
		return incompatible("volume", req.Name, "mutable_parameters", err.Error())
	}
	err := c.checkByBackend(ctx, v, req)
	if refuses(err) {
		return incompatible("volume", req.Name, "volume_capabilities", err.Error())
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

func incompatible(what, name, field, detail string) error {
	return fmt.Errorf("%s %q: %w by its %s: %s", what, name, backends.ErrIncompatible, field, detail)
}
