package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	floor := &driver{name: "floor", size: 7.5, start: series{4e6, 2e6, 3e6}, rss: series{10}}
	ours := &driver{name: "minimal", size: 9, start: series{7e6, 5e6, 6e6, 8e6}, rss: series{10.5}}
	ours.rate[1] = series{0.25}
	table := driverTable([]*driver{floor, ours, {name: "loop"}})
	table.rows = append(table.rows, &row{
		item: "bind", csikit: &figure{rounds: series{1500, 3400, 2600}, allocs: series{2, 2, 3}}, goal: atMost(nanoseconds, 10e3, 2), note: "why",
	})
	var b strings.Builder
	if err := table.print(&b); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(` +`).ReplaceAllString(b.String(), " ")
	for _, want := range []string{
		"start to first Probe | 6.50 ms (5.00 ms-8.00 ms) | floor 3.00 ms; loop - | x2.17 | <= 8.00 ms | yes\n",
		"binary, stripped, grpcnotrace | 9.00 MB | floor 7.50 MB; loop 0 MB | x1.20 | <= 8.50 MB | NO\n",
		"RSS at rest | 10.5 MiB | floor 10.0 MiB; loop - | x1.05 | <= 11.0 MiB | yes\n",
		"lifecycles, c=16 | 0.250/s | floor -; loop - | | > 600/s | NO\n",
		"bind | 2.60 µs (1.50 µs-3.40 µs), 2 allocs | | | <= 10.0 µs, 2 allocs | yes\n",
		" bind: why\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %q in\n%s", want, &b)
		}
	}
}

func TestGoals(t *testing.T) {
	r := &row{csikit: &figure{rounds: series{102}, allocs: series{3}}, others: []*figure{{rounds: series{100}}}}
	for want, goals := range map[bool][]goal{
		true:  {atMost(nanoseconds, 102, 3), atMost(nanoseconds, 102, -1), atLeast(perSecond, 102), atMostTimes(1.02), atLeastTimes(1.02)},
		false: {atMost(nanoseconds, 102, 2), atMost(nanoseconds, 101, 3), atLeast(perSecond, 103), atMostTimes(1.01), atLeastTimes(1.03)},
	} {
		for _, g := range goals {
			if g.met(r) != want {
				t.Errorf("%s: met is %v", g.text, !want)
			}
		}
	}
}

func TestBenchmarks(t *testing.T) {
	found := make(map[string]*figure)
	out := "goos: linux\nBenchmarkChain/LogOff-2         \t 7903406\t       145.8 ns/op\t     112 B/op\t       1 allocs/op\nPASS\n"
	if err := benchmarks([]byte(out), found); err != nil || found["LogOff"] == nil || found["LogOff"].text(false) != "146 ns, 1 allocs" {
		t.Errorf("%v, %v", found, err)
	}
	if _, err := chainTable(found); err == nil || !strings.Contains(err.Error(), "no BenchmarkChain/LogRPC") {
		t.Errorf("a benchmark is missing: %v", err)
	}
}
