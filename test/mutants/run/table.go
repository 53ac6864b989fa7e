package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/csikit/csikit/test/mutants"
)

// table prints what became of each, and the sums.
func table(out io.Writer, list []outcome, took time.Duration) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b outcome) int { return cmp.Compare(a.m.Class, b.m.Class) })
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MUTANT\tCLASS\tCLAUSES\tCAUGHT BY\tCLAUSE NAMED\tSECONDS")
	for _, o := range list {
		if o.m.Class == mutants.Valid {
			continue
		}
		by, named := o.by, "yes"
		if !o.right {
			named = "NO"
		}
		if by == "" {
			by, named = "NOBODY", ""
		} else if o.as != "FAIL" {
			by += " (" + string(o.as) + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.1f\n", o.m.Name, o.m.Class, strings.Join(o.m.Clauses, " "), by, named, o.took.Seconds())
	}
	fmt.Fprintln(w, "\nVALID VARIANT\t\t\tVERDICT\t\tSECONDS")
	for _, o := range list {
		if o.m.Class == mutants.Valid {
			fmt.Fprintf(w, "%s\t\t\t%s\t\t%.1f\n", o.m.Name, o.summary(), o.took.Seconds())
		}
	}
	_ = w.Flush() // to the terminal
	sums(out, list, took)
}

func sums(out io.Writer, list []outcome, took time.Duration) {
	number, caught := make(map[mutants.Class]int), make(map[mutants.Class]int)
	var order []mutants.Class
	for _, o := range list {
		if number[o.m.Class] == 0 {
			order = append(order, o.m.Class)
		}
		number[o.m.Class]++
		if o.good() {
			caught[o.m.Class]++
		}
	}
	fmt.Fprintln(out)
	for _, c := range order {
		verb := "caught"
		if c == mutants.Valid {
			verb = "left alone"
		}
		fmt.Fprintf(out, "%-12s %3d of %3d %s\n", c, caught[c], number[c], verb)
	}
	fmt.Fprintf(out, "%.0f seconds\n", took.Seconds())
}

// writeSurvivors lists what is not as it should be, for the author of the checks.
func writeSurvivors(file string, list []outcome) error {
	var b strings.Builder
	for _, o := range list {
		if o.good() {
			continue
		}
		fmt.Fprintf(&b, "%s [%s, %s] %s\n    %s\n", o.m.Name, o.m.Class, o.m.Base, strings.Join(o.m.Clauses, " "), o.m.Does)
		fmt.Fprintf(&b, "    checks of these clauses: %s\n    %s\n", strings.Join(ofClauses(o.m.Clauses), " "), o.summary())
		if o.why != "" {
			fmt.Fprintf(&b, "    said: %.600s\n", strings.Join(strings.Fields(o.why), " "))
		}
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}
