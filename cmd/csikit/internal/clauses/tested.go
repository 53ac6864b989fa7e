package clauses

import (
	_ "embed" // of the record
	"slices"
	"strings"
)

//go:embed mutants.tsv
var record string

// Mutant is one of the drivers with a fault (package test/mutants) in the last run
// of all of them, which make mutants writes down.
type Mutant struct {
	Name    string
	Clauses []string // that it breaks
	Proved  []string // those of them that the check is of
	Check   string   // that caught it; "" when none did
}

// Mutants are all of that run.
func Mutants() []Mutant {
	var all []Mutant
	for line := range strings.Lines(record) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) == 5 && f[0] != "mutant" {
			all = append(all, Mutant{f[0], strings.Fields(f[1]), strings.Fields(f[2]), f[3]})
		}
	}
	return all
}

// Tested gives by clause the checks that caught a driver which breaks it: each is of
// that clause. A clause without one is held by no test of drivers, whatever checks
// there are.
func Tested() map[string][]string {
	by := map[string][]string{}
	for _, m := range Mutants() {
		for _, c := range m.Proved {
			if !slices.Contains(by[c], m.Check) {
				by[c] = append(by[c], m.Check)
			}
		}
	}
	return by
}
