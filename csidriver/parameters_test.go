package csidriver

import (
	"regexp"
	"testing"

	"github.com/csikit/csikit/backends"
)

const goldenFingerprint = "1.63gywbm6b23hj7fpvmnfo67jucea62nd"

func TestFingerprint(t *testing.T) {
	form := regexp.MustCompile(`^[a-z0-9.]{1,40}$`)
	seen := make(map[string]map[string]string)
	for _, params := range []map[string]string{
		nil, {"a": "b"}, {"a": "c"}, {"b": "b"}, {"a": "b", "c": "d"}, {"a": ""}, {"": "a"}, {"ab": ""}, {"a": "bc", "d": ""}, {"a": "b", "cd": ""},
	} {
		f := fingerprint(params)
		if !form.MatchString(f) {
			t.Errorf("%v: %q", params, f)
		}
		if other, ok := seen[f]; ok {
			t.Errorf("%v and %v are alike", params, other)
		}
		seen[f] = params
	}
	// Golden: volumes keep it for years.
	if f := fingerprint(map[string]string{"class": "ssd", "type": "thin"}); f != goldenFingerprint {
		t.Errorf("fingerprint %q, it was %q", f, goldenFingerprint)
	}
	if fingerprint(nil) != fingerprint(map[string]string{}) {
		t.Error("no parameters and empty ones differ")
	}
}

func TestFingerprintLeavesOut(t *testing.T) {
	s := newSchema([]backends.Parameter{{Name: "class"}, {Name: "iops", Mutable: true}, {Name: "type", Default: "thin"}})
	given := map[string]string{"class": "ssd", "iops": "5"}
	one := fingerprint(s.immutable(given))
	given["iops"] = "6"
	if fingerprint(s.immutable(given)) != one {
		t.Error("a mutable parameter counts")
	}
	if s.complete(given, nil); given["type"] != "thin" || fingerprint(s.immutable(map[string]string{"class": "ssd"})) != one {
		t.Error("a default counts, or is not filled in")
	}
}

func TestSameFingerprint(t *testing.T) {
	a, b := fingerprint(nil), fingerprint(map[string]string{"a": "b"})
	for _, tc := range []struct {
		stored, wanted string
		same           bool
	}{{a, a, true}, {a, b, false}, {"", b, true}, {"2.zzz", b, true}} {
		if got := sameFingerprint(tc.stored, tc.wanted); got != tc.same {
			t.Errorf("%q, %q: %v", tc.stored, tc.wanted, got)
		}
	}
}

func TestSchema(t *testing.T) {
	if err := schema(nil).check(map[string]string{"anything": "goes"}, true); err != nil {
		t.Error(err)
	}
	if s := newSchema([]backends.Parameter{}); s == nil || s.check(map[string]string{"a": "b"}, true) == nil {
		t.Error("an empty schema allows parameters")
	}
	if got := schema(nil).complete(nil, nil); got != nil {
		t.Errorf("completed %v", got)
	}
}
