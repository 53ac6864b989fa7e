package co

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
)

const codesHead = `# Codes: what each failure is answered with

Written by ` + "`go test ./test/co -run TestCodes -update`" + ` from what a driver over backends/mem answers; the test fails when it
answers something else. Each cell is one failure of one call, in a driver of its own.

**Bold** is a code that the CO takes for the end: it then forgets the volume, or takes it for gone. Everything else it asks again.

- What makes something (CreateVolume, ControllerPublishVolume, ControllerExpandVolume, ControllerModifyVolume, CreateSnapshot,
  CreateVolumeGroupSnapshot, NodeStageVolume, NodePublishVolume, NodeExpandVolume): every code but CANCELLED, DEADLINE_EXCEEDED,
  UNAVAILABLE, ABORTED and, outside CreateVolume, RESOURCE_EXHAUSTED. ControllerModifyVolume: the sidecar makes the same difference,
  and only INVALID_ARGUMENT makes it go back to the old class.
- What takes something away: OK, and for Nomad NOT_FOUND. Everything else is asked again by each of them.
- What only reads leaves nothing behind, so that no code is bold.

The rows are the failures, the columns kinds of calls that get the same codes; which these are stands below. The place of a failure
is the method of the backend that fails, or the node engine. "–": this cannot happen to it.

`

// class are rows of the table with the same codes, as far as they have any.
type class struct {
	cells   []cell
	members []string
}

// classes puts rows together that do not contradict each other.
func classes(rows []*rpc, columns []*failure, table [][]cell) []*class {
	var all []*class
	for i, r := range rows {
		cells := make([]cell, len(columns))
		for j := range columns {
			cells[j] = shown(r, table[i][j])
		}
		name := r.name
		if r.at != "" {
			name += " (" + r.at + ")"
		}
		at := slices.IndexFunc(all, func(c *class) bool { return agree(c.cells, cells) })
		if at < 0 {
			all = append(all, &class{cells: cells, members: []string{name}})
			continue
		}
		all[at].members = append(all[at].members, name)
		for j, c := range cells {
			if c != none {
				all[at].cells[j] = c
			}
		}
	}
	return all
}

// agree: no cell says something else, and most are there in both, or few in either.
func agree(a, b []cell) bool {
	both, either := 0, 0
	for i := range a {
		switch {
		case a[i] == none && b[i] == none:
			continue
		case a[i] == none || b[i] == none:
		case a[i] != b[i]:
			return false
		default:
			both++
		}
		either++
	}
	return both > len(a)/2 || either < 5
}

func shown(r *rpc, c cell) cell {
	if c != none && final(r.full, codeOf(c)) {
		return "**" + c + "**"
	}
	return c
}

func codesPage(rows []*rpc, columns []*failure, table [][]cell) []byte {
	var b bytes.Buffer
	b.WriteString(codesHead)
	all := classes(rows, columns, table)
	const wide = 4
	for from := 0; from < len(all); from += wide {
		part := all[from:min(from+wide, len(all))]
		writeClasses(&b, from, part, columns)
	}
	cells := 0
	for i := range table {
		for _, c := range table[i] {
			if c != none {
				cells++
			}
		}
	}
	fmt.Fprintf(&b, "%d calls, %d failures, %d cells.\n", len(rows), len(columns), cells)
	return b.Bytes()
}

func writeClasses(b *bytes.Buffer, from int, part []*class, columns []*failure) {
	fmt.Fprintf(b, "## Kinds %d to %d\n\n", from+1, from+len(part))
	for i, c := range part {
		fmt.Fprintf(b, "%d. %s\n", from+i+1, strings.Join(c.members, "; "))
	}
	b.WriteString("\n| failure |")
	for i := range part {
		fmt.Fprintf(b, " %d |", from+i+1)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(part)) + "\n")
	for j, f := range columns {
		line := fmt.Sprintf("| %s |", f.name)
		empty := true
		for _, c := range part {
			empty = empty && c.cells[j] == none
			line += fmt.Sprintf(" %s |", cmp.Or(c.cells[j], none))
		}
		if !empty {
			b.WriteString(line + "\n")
		}
	}
	b.WriteString("\n")
}
