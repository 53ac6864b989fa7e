package walk

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Printer writes a walk for people: an RPC with its time, then what is seen.
type Printer struct{ Out io.Writer }

// Section begins a part of the walk.
func (p Printer) Section(title string) { fmt.Fprintf(p.Out, "\n== %s\n", title) }

// See prints what the kernel or the disk shows.
func (p Printer) See(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Fprintf(p.Out, "%26s              | %s\n", "", strings.TrimRight(line, "\n"))
	}
}

// rpc prints one call: its name, how long it took, what came of it.
func (p Printer) rpc(name string, took time.Duration, result string) {
	fmt.Fprintf(p.Out, "%-26s %8.2f ms  %s\n", name, float64(took.Microseconds())/1000, result)
}

// mib is a size for people.
func mib(bytes int64) string { return fmt.Sprintf("%d MiB", bytes>>20) }
