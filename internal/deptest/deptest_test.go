package deptest

import (
	"slices"
	"testing"
)

const listing = `unsafe true
fmt true unsafe
example.org/lib/deep false fmt
example.org/library false fmt
example.org/lib false example.org/lib/deep fmt
example.org/me/part false example.org/lib
example.org/me false fmt example.org/me/part example.org/library
`

func TestRules(t *testing.T) {
	g, err := parse(listing)
	if err != nil {
		t.Fatal(err)
	}
	const deep = "must not depend on example.org/lib/deep"
	const way = " (example.org/me -> example.org/me/part -> example.org/lib -> example.org/lib/deep)"
	for _, tt := range []struct {
		name string
		got  []string
		want []string
	}{
		{"allowed by prefix", g.only(map[string]string{"example.org": ""}), nil},
		{"a prefix is of whole elements", g.only(map[string]string{"example.org/lib": "", "example.org/me": ""}),
			[]string{"must not depend on example.org/library (example.org/me -> example.org/library)"}},
		{"what comes with an import counts", g.only(map[string]string{"example.org/library": "", "example.org/me/part": ""}),
			[]string{"must not depend on example.org/lib (example.org/me -> example.org/me/part -> example.org/lib)", deep + way}},
		{"forbidden", g.never(map[string]string{"example.org/lib/deep": "too deep"}), []string{deep + ": too deep" + way}},
		{"forbidden, standard", g.never(map[string]string{"fmt": "slow"}), []string{"must not depend on fmt: slow (example.org/me -> fmt)"}},
		{"never itself", g.never(map[string]string{"example.org/me": "x"}),
			[]string{"must not depend on example.org/me/part: x (example.org/me -> example.org/me/part)"}},
		{"nothing forbidden", g.never(map[string]string{"example.com": "x"}), nil},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, tt.got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, out := range []string{"", "lonely\n"} {
		if _, err := parse(out); err == nil {
			t.Errorf("parse(%q) succeeded", out)
		}
	}
}

// failures stands in for the test whose failures are wanted.
type failures struct {
	testing.TB
	n int
}

func (f *failures) Error(...any) { f.n++ }
func (f *failures) Helper()      {}

func TestThisPackage(t *testing.T) {
	Only(t, map[string]string{"github.com/csikit/csikit/internal/testenv": "says what is missing"})
	f := &failures{TB: t}
	if Never(f, map[string]string{"testing": "it is for tests only"}); f.n == 0 {
		t.Error("the import of testing was not found")
	}
}
