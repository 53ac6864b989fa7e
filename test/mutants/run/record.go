package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/csikit/csikit/test/mutants"
)

// record is by the names of mutants: which check caught each when it was last run.
type record map[string]caught

// caught is a line of a record.
type caught struct {
	clauses string // of the mutant
	proved  string // those of them that the check is of
	by      string // the check
	again   string // the check that shows it when it runs alone
}

const recordHeader = "mutant\tclauses\tproved\tcaught by\tseen in\n"

// readRecord reads the last run, if there was one.
func readRecord(file string) (record, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := record{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); len(f) == 5 && line != recordHeader {
			r[f[0]] = caught{f[1], f[2], f[3], f[4]}
		}
	}
	return r, nil
}

// writeRecord keeps a run, for the next one and for csikit check --clauses: in it are
// the mutants that there are, with what caught them when they were last run. One that
// survived, or was caught for something else, has empty columns.
func writeRecord(file string, before record, list []outcome) error {
	now := record{}
	for _, m := range mutants.All() {
		if c, ok := before[m.Name]; ok && c.clauses == strings.Join(m.Clauses, " ") {
			now[m.Name] = c
		}
	}
	for _, o := range list {
		c := caught{clauses: strings.Join(o.m.Clauses, " ")}
		if o.m.Class == mutants.Valid {
			continue
		}
		if o.good() {
			c.proved, c.by, c.again = strings.Join(o.proved, " "), o.by, o.again
		}
		now[o.m.Name] = c
	}
	var b strings.Builder
	b.WriteString(recordHeader)
	for _, name := range slices.Sorted(maps.Keys(now)) {
		c := now[name]
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%s\n", name, c.clauses, c.proved, c.by, c.again)
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}
