package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/csikit/csikit/test/mutants"
)

// record is a run by the names of mutants: which check caught each.
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

// writeRecord keeps a run, for the next one and for csikit check --clauses. A mutant
// that survives, or is caught for something else, has empty columns.
func writeRecord(file string, list []outcome) error {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b outcome) int { return cmp.Compare(a.m.Name, b.m.Name) })
	var b strings.Builder
	b.WriteString(recordHeader)
	for _, o := range list {
		switch {
		case o.m.Class == mutants.Valid:
			continue
		case !o.good():
			o.by, o.again, o.proved = "", "", nil
		}
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%s\n", o.m.Name, strings.Join(o.m.Clauses, " "), strings.Join(o.proved, " "), o.by, o.again)
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}
