package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/csikit/csikit/cmd/csikit/internal/clauses"
	"github.com/csikit/csikit/sanity"
)

func clauseWords(id string) string { return clauses.Words(id) }

// proved gives the ids of the checks of each clause.
func proved() map[string][]string {
	by := map[string][]string{}
	for _, c := range sanity.Checks() {
		for _, id := range c.Clauses {
			if !slices.Contains(by[id], c.ID) {
				by[id] = append(by[id], c.ID)
			}
		}
	}
	return by
}

// printClauses says of each clause of the spec who holds a driver to it: a check of
// this command, csidriver for each driver that is made with it, or nobody.
func printClauses(out io.Writer) {
	checks := proved()
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
			by = append(by, "not tested: "+why(c))
		}
		fmt.Fprintf(out, "%-6s  %-10s %-28s %s\n        %s\n", c.ID, c.Strength, c.RPC, c.Words, strings.Join(by, "; "))
	}
	fmt.Fprintf(out, "\n%d clauses: %d tested and enforced, %d tested only, %d enforced only, %d neither\n", both+tested+enforced+none, both, tested, enforced, none)
}

// some are the first of a list, and how many more there are.
func some(list []string) string {
	if len(list) <= 3 {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:3], ", "), len(list)-3)
}

// why says why nobody can hold a driver to a clause from outside.
func why(c clauses.Clause) string {
	if reason := untestable[c.ID]; reason != "" {
		return reason
	}
	switch c.Testable {
	case "no":
		return "it is about documents and deployment, and no call shows it"
	case "needs fault injection":
		return "it takes a storage that fails in a certain way at a certain time, which no call can bring about"
	}
	return "no check yet"
}

// untestable says more than the table about single clauses.
var untestable = map[string]string{}
