package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// chains measures the interceptors alone, by csidriver's own benchmarks: they
// reach what is not exported. Each round runs all of them.
func chains(ctx context.Context, c config, root, dir string) (*table, error) {
	found, err := benchmarksOf(ctx, c, root, dir, "csidriver", "BenchmarkChain")
	if err != nil {
		return nil, err
	}
	return chainTable(found)
}

// benchmarksOf runs those of a package, all of them in each round.
func benchmarksOf(ctx context.Context, c config, root, dir, pkg, name string) (map[string]*figure, error) {
	binary := filepath.Join(dir, pkg+".test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./"+pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the benchmarks of %s: %w\n%s", pkg, err, out)
	}
	found := make(map[string]*figure)
	return found, interleave(ctx, c.rounds, func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, binary, "-test.run=^$", "-test.bench=^"+name+"$", "-test.benchmem", "-test.benchtime="+(c.slice/2).String())
		cmd.Dir = filepath.Join(root, pkg)
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("benchmarks of %s: %w\n%s", pkg, err, out)
		}
		return benchmarks(out, found)
	})
}

// benchmark is a line of Go's: name, repetitions, time, bytes, allocations.
var benchmark = regexp.MustCompile(`^Benchmark\w+/(\w+)(?:-\d+)?\s+\d+\s+([0-9.]+) ns/op\s+[0-9.]+ B/op\s+([0-9.]+) allocs/op$`)

func benchmarks(out []byte, into map[string]*figure) error {
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		m := benchmark.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		ns, err := strconv.ParseFloat(m[2], 64)
		allocs, err2 := strconv.ParseFloat(m[3], 64)
		if err = errors.Join(err, err2); err != nil {
			return err
		}
		f := into[m[1]]
		if f == nil {
			f = &figure{name: m[1]}
			into[m[1]] = f
		}
		f.add(ns, allocs)
	}
	return lines.Err()
}

// chainRows are the rows, by the names of the benchmarks.
var chainRows = []struct {
	item, csikit string
	others       map[string]string // its name in the table: the benchmark
	goal         goal
	note         string
}{
	{item: "logging off", csikit: "LogOff", goal: atMost(nanoseconds, 300, 3)},
	{item: "a line each call", csikit: "LogRPC"},
	{
		item: "a line each call and the request", csikit: "LogRequests", goal: atMost(nanoseconds, 3000, 15),
		others: map[string]string{"two lines, with the request by fmt.Sprint and its secrets": "LogText"},
	},
	{
		item: "telemetry off", csikit: "TelemetryOff", others: map[string]string{"csikit without the feature": "LogOff"},
		goal: goal{"0 added (20 ns)", func(r *row) bool {
			return r.csikit.rounds.median()-r.others[0].rounds.median() <= 20 && r.csikit.allocs.median() == r.others[0].allocs.median()
		}},
	},
	{
		item: "telemetry, no-op providers", csikit: "TelemetryNoop", others: map[string]string{"csikit, off": "TelemetryOff"},
	},
	{
		item: "telemetry, recording providers", csikit: "TelemetryRecording", others: map[string]string{"csikit, off": "TelemetryOff"},
		note: "of csikit's tests: they keep every attribute of a span and of a duration; an SDK costs what it costs",
	},
}

// named gives what a benchmark found a name for a table.
func named(found map[string]*figure, name, benchmark, of string) (*figure, error) {
	f := found[benchmark]
	if f == nil {
		return nil, fmt.Errorf("there is no %s/%s", of, benchmark)
	}
	return &figure{name: name, rounds: f.rounds, allocs: f.allocs}, nil
}

func chainTable(found map[string]*figure) (*table, error) {
	t := &table{title: "interceptors alone, NodePublishVolume with 2 secrets"}
	figureOf := func(name, benchmark string) (*figure, error) { return named(found, name, benchmark, "BenchmarkChain") }
	for _, r := range chainRows {
		ours, err := figureOf("csikit", r.csikit)
		if err != nil {
			return nil, err
		}
		line := &row{item: r.item, csikit: ours, goal: r.goal, note: r.note}
		for name, benchmark := range r.others {
			other, err := figureOf(name, benchmark)
			if err != nil {
				return nil, err
			}
			line.others = append(line.others, other)
		}
		t.rows = append(t.rows, line)
	}
	return t, nil
}
