package main

import (
	"fmt"
)

// driverTable compares examples/minimal with the bare server and the loop-file
// driver, each a process of its own.
func driverTable(drivers []*driver) *table {
	floor, ours, loop := drivers[0], drivers[1], drivers[2]
	t := &table{title: "drivers: examples/minimal"}
	add := func(item string, u unit, g goal, of func(*driver) series) {
		t.rows = append(t.rows, &row{
			item: item, goal: g, csikit: &figure{unit: u, rounds: of(ours)},
			others: []*figure{{name: floor.name, unit: u, rounds: of(floor)}, {name: loop.name, unit: u, rounds: of(loop)}},
		})
	}
	add("binary, stripped, grpcnotrace", megabytes, atMost(megabytes, 8.5, -1), func(d *driver) series { return series{d.size} })
	add("start to first Probe", nanoseconds, atMost(nanoseconds, 8e6, -1), func(d *driver) series { return d.start })
	add("RSS at rest", mebibytes, atMost(mebibytes, 11, -1), func(d *driver) series { return d.rss })
	for i, n := range concurrency {
		add(fmt.Sprintf("lifecycles, c=%d", n), perSecond, atLeast(perSecond, leastRate[i]), func(d *driver) series { return d.rate[i] })
	}
	for i, s := range stepNames {
		add("  "+s+", c=1", nanoseconds, goal{}, func(d *driver) series { return d.steps[i] })
	}
	return t
}
