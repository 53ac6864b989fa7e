package csidriver

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
)

// schema is Traits.Parameters by name; nil when the driver has none and any
// parameter is allowed.
type schema map[string]*backends.Parameter

func newSchema(list []backends.Parameter) schema {
	if list == nil {
		return nil
	}
	s := make(schema, len(list))
	for i := range list {
		s[list[i].Name] = &list[i]
	}
	return s
}

// check refuses what the schema does not know. complete says that these are all
// parameters of a volume, so that a required one may not be missing.
func (s schema) check(params map[string]string, complete bool) error {
	if s == nil {
		return nil
	}
	for _, k := range slices.Sorted(maps.Keys(params)) {
		if err := s.checkValue(k, params[k]); err != nil {
			return err
		}
	}
	if !complete {
		return nil
	}
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if _, ok := params[k]; !ok && s[k].Required {
			return invalid("parameter %q is required", k)
		}
	}
	return nil
}

// checkCreate checks the parameters of a new volume and those that may change
// later, of which one that is required may be in either. No key is in both.
func (s schema) checkCreate(params, mutable map[string]string) error {
	if err := s.checkMutable(mutable); err != nil {
		return err
	}
	if len(mutable) == 0 {
		return s.check(params, true)
	}
	all := maps.Clone(mutable)
	maps.Copy(all, params)
	return s.check(all, true)
}

// overridden is params without what mutable has: it takes precedence, so that
// what stands beside it in params is neither compared nor looked at. A CO that
// repeats its request with another value there asks for the same volume. params
// may be changed.
func overridden(params, mutable map[string]string) map[string]string {
	maps.DeleteFunc(params, func(k, _ string) bool { _, ok := mutable[k]; return ok })
	return params
}

// checkMutable refuses what the schema does not know, and what is not for change.
func (s schema) checkMutable(mutable map[string]string) error {
	if err := s.check(mutable, false); err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(mutable)) {
		if p := s[k]; p != nil && !p.Mutable {
			return invalid("parameter %q is not one of those that can be modified", k)
		}
	}
	return nil
}

// sameMutable tells whether a volume has the mutable parameters that are asked
// for, as far as its backend says.
func sameMutable(have, want map[string]string) bool {
	for k, v := range want {
		if h, ok := have[k]; ok && h != v {
			return false
		}
	}
	return true
}

// unknownOf are the mutable parameters that are asked for and that an existing
// volume does not have: of those it has, an older version of the driver may know.
func unknownOf(want, have map[string]string) map[string]string {
	if have == nil {
		return nil // nobody knows which it has
	}
	rest := maps.Clone(want)
	maps.DeleteFunc(rest, func(k, _ string) bool { _, ok := have[k]; return ok })
	return rest
}

// checkValue does not repeat the value: it may be a secret in the wrong place.
func (s schema) checkValue(k, v string) error {
	p, ok := s[k]
	switch {
	case !ok:
		return invalid("parameter %q is not known; this driver has: %s", k, strings.Join(slices.Sorted(maps.Keys(s)), ", "))
	case p.Values != nil && !slices.Contains(p.Values, v):
		return invalid("parameter %q must be one of: %s", k, strings.Join(p.Values, ", "))
	}
	return nil
}

// complete adds the defaults of what is missing in params and in mutable. params
// may be changed.
func (s schema) complete(params, mutable map[string]string) map[string]string {
	for k, p := range s {
		_, given := params[k]
		_, over := mutable[k]
		if given || over || p.Default == "" {
			continue
		}
		if params == nil {
			params = make(map[string]string)
		}
		params[k] = p.Default
	}
	return params
}

// immutable is what the fingerprint of a volume stands for: the parameters as
// the user wrote them, without those that may change during its life. Defaults
// are not in it: a new version of the driver may have others, and must know its
// volumes again.
func (s schema) immutable(params map[string]string) map[string]string {
	out := make(map[string]string, len(params))
	for k, v := range params {
		if p := s[k]; p == nil || !p.Mutable {
			out[k] = v
		}
	}
	return out
}

// fingerprintVersion is changed when the meaning of a fingerprint changes; an
// other version is not compared.
const fingerprintVersion = "1."

var fingerprintCode = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// fingerprint stands for a set of parameters: 34 characters of [a-z0-9.].
func fingerprint(params map[string]string) string {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(params)) {
		for _, part := range [...]string{k, params[k]} {
			var n [8]byte
			binary.BigEndian.PutUint64(n[:], uint64(len(part)))
			_, _ = h.Write(n[:])         // a hash does not fail
			_, _ = h.Write([]byte(part)) //
		}
	}
	return fingerprintVersion + fingerprintCode.EncodeToString(h.Sum(nil)[:20])
}

// sameFingerprint tells whether a volume may have been made with these
// parameters. What a backend did not keep, or another version made, says nothing.
func sameFingerprint(stored, wanted string) bool {
	return stored == wanted || !strings.HasPrefix(stored, fingerprintVersion)
}
