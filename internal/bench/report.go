package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
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
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// report prints the table. The first driver is the floor.
func report(w io.Writer, c config, drivers []*driver) {
	fmt.Fprintf(w, "%s, %d CPUs, %s; %d rounds of %v; volumes of %d MiB; %s\n\n",
		runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), runtime.Version(), c.rounds, c.duration, c.size>>20, diskOf(c.dir))
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	row := func(title string, of func(*driver) series) {
		cells := []string{title}
		for i, d := range drivers {
			var floor series
			if i > 0 {
				floor = of(drivers[0])
			}
			cells = append(cells, of(d).cell(floor))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	head := []string{"median (min-max) xbare"}
	for _, d := range drivers {
		head = append(head, d.name)
	}
	fmt.Fprintln(t, strings.Join(head, "\t"))
	row("binary, MB, stripped, grpcnotrace", func(d *driver) series { return series{d.size} })
	row("start to first Probe, ms", func(d *driver) series { return d.start })
	row("RSS at rest, MiB", func(d *driver) series { return d.rss })
	for i, n := range concurrency {
		row(fmt.Sprintf("lifecycles/s, c=%d", n), func(d *driver) series { return d.rate[i] })
	}
	for i, s := range stepNames {
		row("  "+s+", ms, c=1", func(d *driver) series { return d.steps[i] })
	}
	if err := t.Flush(); err != nil {
		fmt.Fprintln(w, err)
	}
	fmt.Fprintln(w)
}
