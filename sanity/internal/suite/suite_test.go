package suite

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// TestHas: a secret is found as programs print it, wherever it begins in what they
// encode; and what is near it is not.
func TestHas(t *testing.T) {
	const word = "canary-csikit-1-canary"
	for _, before := range []string{"", "u", "us", "user:", "user=x&password="} {
		for _, behind := range []string{"", "!", "!!", "!!!"} {
			text := before + word + behind
			for how, encoded := range map[string]string{
				"plain": text, "hex": hex.EncodeToString([]byte(text)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(text))),
				"base64": base64.StdEncoding.EncodeToString([]byte(text)), "for URLs": base64.RawURLEncoding.EncodeToString([]byte(text)),
			} {
				if !has("level=INFO value="+encoded+" end", word) {
					t.Errorf("%s of %q is not found: %s", how, text, encoded)
				}
			}
		}
	}
	for _, other := range []string{"canary-csikit-2-canary", base64.StdEncoding.EncodeToString([]byte("canary-csikit-2-canary")), ""} {
		if has(other, word) {
			t.Errorf("found in %q", other)
		}
	}
	if keys := told("password is password, token is abcdefgh", map[string]string{"password": "passwor", "token": "abcdefgh"}); !slices.Equal(keys, []string{"token"}) {
		t.Errorf("told %q", keys)
	}
}

func TestNeighbours(t *testing.T) {
	for value, want := range map[string][]string{
		"zone-1": {"zone-2", "zone-0"}, "us-east-1a": {"us-east-1b"}, "rack9": {"rack8"}, "Z": {"Y"}, "a-": nil, "": nil,
	} {
		if got := neighbours(value); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestParameterPairs(t *testing.T) {
	given := map[string]string{"a": "1", "b": "2"}
	all := parameterPairs(given)
	if len(all) != 5 || len(given) != 2 {
		t.Fatalf("%d pairs; %v", len(all), given)
	}
	for _, p := range all {
		if p.was[p.key] == p.is[p.key] {
			t.Errorf("%+v do not differ in %s", p, p.key)
		}
		for k, v := range p.was {
			if k != p.key && p.is[k] != v {
				t.Errorf("%+v differ in %s", p, k)
			}
		}
	}
}

// TestRising: what rises by less than one for each life is no leak.
func TestRising(t *testing.T) {
	before := []usage{{"descriptors", 10, 1}, {"threads", 5, 1}, {"MiB of memory", 100, 8}}
	now := []usage{{"descriptors", 13, 1}, {"threads", 9, 1}, {"MiB of memory", 131, 8}}
	if got := rising(before, now, 4); !slices.Equal(got, []string{"threads"}) {
		t.Errorf("rising %q", got)
	}
}

// TestAll: the check that stands for a plugin that lacks something comes first,
// and ids are there once.
func TestAll(t *testing.T) {
	seen := map[string]bool{}
	for i, c := range All() {
		if i == 0 && c.ID != "H-11/mandatory" {
			t.Errorf("%s comes first", c.ID)
		}
		if seen[c.ID] || c.Title == "" || len(c.ClauseIDs()) == 0 || c.Run == nil {
			t.Errorf("%s is there twice, or lacks something", c.ID)
		}
		seen[c.ID] = true
	}
}
