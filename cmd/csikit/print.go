package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// printer writes the walk for people: an RPC with its time, then what is seen.
type printer struct{ out io.Writer }

func (p *printer) title(w workspace) {
	if w.rootless {
		fmt.Fprintln(p.out, "csikit demo: directory driver in a user namespace (not root)")
		fmt.Fprintln(p.out, "  What this cannot show: block devices, mkfs, growth, loop devices. As root it does.")
	} else {
		fmt.Fprintln(p.out, "csikit demo: loop-file driver in a mount namespace of its own")
	}
	fmt.Fprintln(p.out, "  working in", w.dir)
}

func (p *printer) section(title string) { fmt.Fprintf(p.out, "\n== %s\n", title) }

// rpc prints one call: its name, how long it took, what came of it.
func (p *printer) rpc(name string, took time.Duration, result string) {
	fmt.Fprintf(p.out, "%-26s %8.2f ms  %s\n", name, float64(took.Microseconds())/1000, result)
}

// see prints what the kernel or the disk shows.
func (p *printer) see(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Fprintf(p.out, "%26s              | %s\n", "", strings.TrimRight(line, "\n"))
	}
}

func (p *printer) leftovers(l leftovers, took time.Duration) {
	fmt.Fprintf(p.out, "\n%.1f s\n", took.Seconds())
	for _, kind := range [][]string{l.mounts, l.loops, l.files} {
		for _, name := range kind {
			fmt.Fprintln(p.out, "  left:", name)
		}
	}
	fmt.Fprintf(p.out, "%d mounts, %d loop devices, %d files left\n", len(l.mounts), len(l.loops), len(l.files))
}

// size in MiB.
func mib(bytes int64) string { return fmt.Sprintf("%d MiB", bytes>>20) }
