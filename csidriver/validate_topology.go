package csidriver

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
)

// checkTopologyKey checks a key as CSI and as Kubernetes (it becomes a node
// label) want it: an optional prefix of lower-case domain form, and a name.
func checkTopologyKey(key string) error {
	prefix, name, found := strings.Cut(key, "/")
	if !found {
		prefix, name = "", key
	}
	if found && !domainName(prefix, lowerAlphanumeric) {
		return fmt.Errorf("its prefix is not a lower-case domain name of at most %d characters", maxLength)
	}
	if !topologyName(name) {
		return fmt.Errorf("%q is not of at most %d characters of [A-Za-z0-9._-] that begins and ends with one of [A-Za-z0-9]", name, maxLength)
	}
	return nil
}

// topologyName is what the name of a key and each value must be.
func topologyName(s string) bool {
	if s == "" || len(s) > maxLength || !alphanumeric(rune(s[0])) || !alphanumeric(rune(s[len(s)-1])) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return !alphanumeric(r) && !strings.ContainsRune("-_.", r) })
}

// domainName checks RFC 1035's form, with labels that may begin with a digit.
func domainName(s string, allowed func(rune) bool) bool {
	if s == "" || len(s) > maxLength {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || !allowed(rune(label[0])) || !allowed(rune(label[len(label)-1])) {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool { return !allowed(r) && r != '-' }) {
			return false
		}
	}
	return true
}

func lowerAlphanumeric(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' }

// checkTopologyKeys reports all that is wrong with Traits.TopologyKeys.
func checkTopologyKeys(keys []string) error {
	var errs []error
	var prefixes []string
	seen := make(map[string]string)
	for _, k := range keys {
		if err := checkTopologyKey(k); err != nil {
			errs = append(errs, fmt.Errorf("Traits.TopologyKeys: %q: %w", k, err))
		}
		if other, ok := seen[strings.ToLower(k)]; ok {
			errs = append(errs, fmt.Errorf("Traits.TopologyKeys: %q and %q differ in case at most", other, k))
		}
		seen[strings.ToLower(k)] = k
		if prefix, _, ok := strings.Cut(k, "/"); ok && !slices.Contains(prefixes, prefix) {
			prefixes = append(prefixes, prefix)
		}
	}
	if len(prefixes) > 1 {
		errs = append(errs, fmt.Errorf("Traits.TopologyKeys have several prefixes (%s): CSI wants one", strings.Join(prefixes, ", ")))
	}
	return errors.Join(errs...)
}

// checkSegments checks one place that a request or a backend names.
func checkSegments(t *backends.Traits, s backends.Segments) error {
	_, err := measureSegments(t, s)
	return err
}

// measureSegments is checkSegments, and gives the bytes of keys and values.
func measureSegments(t *backends.Traits, s backends.Segments) (size int, err error) {
	for k, v := range s {
		switch {
		case !slices.Contains(t.TopologyKeys, k):
			return 0, fmt.Errorf("topology key %q is not one of this driver's (%s)", k, strings.Join(t.TopologyKeys, ", "))
		case !topologyName(v):
			return 0, fmt.Errorf("topology value %q of %q is not of at most %d characters of [A-Za-z0-9._-]", v, k, maxLength)
		}
		size += len(k) + len(v)
	}
	return size, nil
}

// checkRequirement checks accessibility_requirements.
func checkRequirement(t *backends.Traits, r backends.TopologyRequirement) error {
	for _, s := range slices.Concat(r.Requisite, r.Preferred) {
		if len(s) == 0 {
			return invalid("accessibility_requirements has an empty topology")
		}
		if err := checkSegments(t, s); err != nil {
			return invalid("accessibility_requirements: %w", err)
		}
	}
	return nil
}

// reachable tells whether a volume at one of places satisfies the requirement:
// at least one requisite place. No places mean everywhere.
func reachable(places []backends.Segments, r backends.TopologyRequirement) bool {
	if len(places) == 0 || len(r.Requisite) == 0 {
		return true
	}
	return slices.ContainsFunc(places, func(p backends.Segments) bool {
		return slices.ContainsFunc(r.Requisite, func(q backends.Segments) bool { return overlap(p, q) })
	})
}

// overlap tells whether two places have one in common: they agree on the keys
// that both name. A region holds its zones.
func overlap(a, b backends.Segments) bool {
	common := false
	for k, v := range a {
		if w, ok := b[k]; ok {
			if v != w {
				return false
			}
			common = true
		}
	}
	return common
}
