package walk

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

// Printer writes a walk for people: an RPC with its time, then what is seen.
type Printer struct{ Out io.Writer }

// Section begins a part of the walk.
func (p Printer) Section(title string) { fmt.Fprintf(p.Out, "\n== %s\n", title) }

// See prints what the kernel or the disk shows.
func (p Printer) See(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Fprintf(p.Out, "%26s              | %s\n", "", Printable(strings.TrimRight(line, "\n")))
	}
}

// Printable is a driver's text without what a terminal would take for commands.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// rpc prints one call: its name, how long it took, what came of it.
func (p Printer) rpc(name string, took time.Duration, result string) {
	fmt.Fprintf(p.Out, "%-26s %8.2f ms  %s\n", name, float64(took.Microseconds())/1000, Printable(result))
}

// mib is a size for people.
func mib(bytes int64) string { return fmt.Sprintf("%d MiB", bytes>>20) }
