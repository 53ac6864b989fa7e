package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/csikit/csikit/cmd/csikit/internal/clauses"
)

func clauseWords(id string) string { return clauses.Words(id) }

// printClauses says of each clause of the spec who holds a driver to it: a check of
// this command, which has caught a driver that breaks it, csidriver for each driver
// that is made with it, or nobody.
func printClauses(out io.Writer) {
	checks := clauses.Tested()
	tested, enforced, both, none := 0, 0, 0, 0
	for _, c := range clauses.All() {
		var by []string
		if t := checks[c.ID]; len(t) > 0 {
			by = append(by, "tested: "+some(t))
		}
		if c.Tests != "" {
			by = append(by, "enforced by csidriver: "+some(strings.Split(c.Tests, "; ")))
		}
		switch {
		case len(by) == 2:
			both++
		case len(checks[c.ID]) > 0:
			tested++
		case c.Tests != "":
			enforced++
		default:
			none++
			by = append(by, "not tested: "+clauses.Why(c))
		}
		fmt.Fprintf(out, "%-6s  %-10s %-28s %s\n        %s\n", c.ID, c.Strength, c.RPC, c.Words, strings.Join(by, "; "))
	}
	fmt.Fprintf(out, "\n%d clauses: %d tested or enforced (%d both, %d tested only, %d enforced only), %d neither\n",
		both+tested+enforced+none, both+tested+enforced, both, tested, enforced, none)
	fmt.Fprintf(out, "tested: a check of the clause caught a driver that breaks it, in a run of %d such drivers\n", len(clauses.Mutants()))
}

// some are the first of a list, and how many more there are.
func some(list []string) string {
	if len(list) <= 3 {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:3], ", "), len(list)-3)
}
