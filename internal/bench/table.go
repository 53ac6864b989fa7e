package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// series is what was measured of one thing, a number a round.
type series []float64

func (s *series) add(v float64) { *s = append(*s, v) }

// median of nothing is 0.
func (s series) median() float64 {
	if len(s) == 0 {
		return 0
	}
	o := slices.Sorted(slices.Values(s))
	if n := len(o); n%2 == 0 {
		return (o[n/2-1] + o[n/2]) / 2
	}
	return o[len(o)/2]
}

// unit says how a number is written.
type unit uint8

const (
	nanoseconds unit = iota
	perSecond
	megabytes
	mebibytes
	times
)

// figure is one of the things that a row compares.
type figure struct {
	name   string
	unit   unit
	rounds series
	allocs series // nil: not counted
}

// add notes one round.
func (f *figure) add(v, allocs float64) {
	f.rounds.add(v)
	f.allocs.add(allocs)
}

// text is the median, the range of the rounds and the allocations.
func (f *figure) text(ranged bool) string {
	if len(f.rounds) == 0 {
		return "-"
	}
	t := f.unit.text(f.rounds.median())
	if ranged && len(f.rounds) > 1 {
		t += fmt.Sprintf(" (%s-%s)", f.unit.text(slices.Min(f.rounds)), f.unit.text(slices.Max(f.rounds)))
	}
	if f.allocs != nil {
		t += fmt.Sprintf(", %.0f allocs", f.allocs.median())
	}
	return t
}

func (u unit) text(v float64) string {
	switch u {
	case perSecond:
		return number(v) + "/s"
	case megabytes:
		return number(v) + " MB"
	case mebibytes:
		return number(v) + " MiB"
	case times:
		return "x" + number(v)
	}
	switch {
	case v >= 1e9:
		return number(v/1e9) + " s"
	case v >= 1e6:
		return number(v/1e6) + " ms"
	case v >= 1e3:
		return number(v/1e3) + " µs"
	}
	return number(v) + " ns"
}

// number shows three digits that count.
func number(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

// row is one line of the table. The ratio is to the first of others.
type row struct {
	item   string
	csikit *figure
	others []*figure
	goal   goal
	note   string // why a goal is missed, what the alternative is
}

// goal is a limit that a row is held against; the zero value is none.
type goal struct {
	text string
	met  func(r *row) bool
}

// atMost is a limit for a time or a size, and with allocs >= 0 one for the
// allocations.
func atMost(u unit, limit float64, allocs int) goal {
	g := goal{text: "<= " + u.text(limit)}
	if allocs >= 0 {
		g.text += fmt.Sprintf(", %d allocs", allocs)
	}
	g.met = func(r *row) bool {
		return r.csikit.rounds.median() <= limit && (allocs < 0 || r.csikit.allocs.median() <= float64(allocs))
	}
	return g
}

func atLeast(u unit, limit float64) goal {
	return goal{"> " + u.text(limit), func(r *row) bool { return r.csikit.rounds.median() >= limit }}
}

// atMostTimes is a limit for the ratio.
func atMostTimes(limit float64) goal {
	return goal{fmt.Sprintf("<= x%.2f", limit), func(r *row) bool { return r.ratio() <= limit }}
}

func atLeastTimes(limit float64) goal {
	return goal{fmt.Sprintf(">= x%.2f", limit), func(r *row) bool { return r.ratio() >= limit }}
}

// ratio is 0 when there is nothing to compare with.
func (r *row) ratio() float64 {
	if len(r.others) == 0 || r.others[0].rounds.median() == 0 {
		return 0
	}
	return r.csikit.rounds.median() / r.others[0].rounds.median()
}

func (r *row) cells() []string {
	var others []string
	for _, o := range r.others {
		others = append(others, o.name+" "+o.text(false))
	}
	ratio, met := "", ""
	if x := r.ratio(); x > 0 {
		ratio = "x" + number(x)
	}
	switch {
	case r.goal.met == nil:
	case r.goal.met(r):
		met = "yes"
	default:
		met = "NO"
	}
	return []string{r.item, r.csikit.text(true), strings.Join(others, "; "), ratio, r.goal.text, met}
}

// table is a part of the report: rows that belong together.
type table struct {
	title string
	rows  []*row
}

// print writes the table with aligned columns, and the notes below it.
func (t *table) print(w io.Writer) error {
	lines := [][]string{{t.title, "csikit (range)", "beside it", "ratio", "goal", "met?"}}
	for _, r := range t.rows {
		lines = append(lines, r.cells())
	}
	width := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, c := range l {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for i, l := range lines {
		writeLine(&b, l, width)
		if i == 0 {
			b.WriteString(strings.Repeat("-", utf8.RuneCountInString(b.String())-1) + "\n")
		}
	}
	for _, r := range t.rows {
		if r.note != "" {
			fmt.Fprintf(&b, "  %s: %s\n", r.item, r.note)
		}
	}
	_, err := io.WriteString(w, b.String()+"\n")
	return err
}

func writeLine(b *strings.Builder, cells []string, width []int) {
	var line strings.Builder
	for i, c := range cells {
		if i > 0 {
			line.WriteString(" | ")
		}
		line.WriteString(c + strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)))
	}
	b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
}
