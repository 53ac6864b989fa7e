package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
)

// series is what was measured of one thing.
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

// cell is a median with its range and its ratio to the floor's.
func (s series) cell(floor series) string {
	if len(s) == 0 {
		return "-"
	}
	c := number(s.median())
	if len(s) > 1 {
		c += fmt.Sprintf(" (%s-%s)", number(slices.Min(s)), number(slices.Max(s)))
	}
	if f := floor.median(); f > 0 {
		c += fmt.Sprintf(" x%s", number(s.median()/f))
	}
	return c
}

// number shows three digits that count.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

// report prints the table. The first driver is the floor.
func report(w io.Writer, c config, drivers []*driver) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s, %d CPUs, %s; %d rounds of %v; volumes of %d MiB; %s\n\n", runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), runtime.Version(), c.rounds, c.duration, c.size>>20, diskOf(c.dir))
	head := []string{"median (min-max) xbare"}
	for _, d := range drivers {
		head = append(head, d.name)
	}
	line(&b, head)
	row := func(title string, of func(*driver) series) {
		cells := []string{title, of(drivers[0]).cell(nil)}
		for _, d := range drivers[1:] {
			cells = append(cells, of(d).cell(of(drivers[0])))
		}
		line(&b, cells)
	}
	row("binary, MB, stripped, grpcnotrace", func(d *driver) series { return series{d.size} })
	row("start to first Probe, ms", func(d *driver) series { return d.start })
	row("RSS at rest, MiB", func(d *driver) series { return d.rss })
	for i, n := range concurrency {
		row(fmt.Sprintf("lifecycles/s, c=%d", n), func(d *driver) series { return d.rate[i] })
	}
	for i, s := range stepNames {
		row("  "+s+", ms, c=1", func(d *driver) series { return d.steps[i] })
	}
	_, err := io.WriteString(w, b.String()+"\n")
	return err
}

// line is one line of the table.
func line(b *strings.Builder, cells []string) {
	fmt.Fprintf(b, "%-35s", cells[0])
	for _, c := range cells[1:] {
		fmt.Fprintf(b, " %27s", c)
	}
	b.WriteByte('\n')
}
