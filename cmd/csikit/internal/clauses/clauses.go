// Package clauses has the clauses of CSI v1.13.0 that bind a plugin, in our words,
// and says of each who holds a driver to it.
package clauses

import (
	_ "embed" // of the table
	"strings"
)

//go:embed clauses.tsv
var table string

// Clause is one of them.
type Clause struct {
	ID, RPC, Words, Strength string
	Testable                 string // yes, no, needs host access, needs fault injection
	Tests                    string // of csidriver, as docs/clauses.md names them
}

// All are the clauses in the order of the spec.
func All() []Clause {
	var all []Clause
	for line := range strings.Lines(table) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) == 6 && f[0] != "id" {
			all = append(all, Clause{f[0], f[1], f[2], f[3], f[4], f[5]})
		}
	}
	return all
}

// Words says a clause, or "".
func Words(id string) string {
	for _, c := range All() {
		if c.ID == id {
			return c.Words + " (" + c.Strength + ")"
		}
	}
	return ""
}
