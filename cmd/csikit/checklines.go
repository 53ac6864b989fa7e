package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/csikit/csikit/cmd/csikit/internal/walk"
	"github.com/csikit/csikit/sanity"
)

// lines prints a line for each spec that has ended, and on a terminal the name
// of the one that runs.
type lines struct {
	out      io.Writer
	terminal bool
}

func newLines(out io.Writer) lines {
	l := lines{out: out}
	if f, ok := out.(*os.File); ok {
		st, err := f.Stat()
		l.terminal = err == nil && st.Mode()&fs.ModeCharDevice != 0
	}
	return l
}

const eraseLine = "\r\x1b[K"

func (l lines) Begin(name string) {
	if l.terminal {
		fmt.Fprintf(l.out, "run   %.70s", name) // no wider than a terminal
	}
}

func (l lines) End(s sanity.Spec) {
	if l.terminal {
		fmt.Fprint(l.out, eraseLine)
	}
	switch s.Outcome {
	case sanity.Passed:
		fmt.Fprintf(l.out, "ok    %6.2f s  %s\n", s.Took.Seconds(), s.Name)
	case sanity.Skipped:
		fmt.Fprintf(l.out, "skip            %s (%s)\n", s.Name, walk.Printable(firstLine(s.Message)))
	default:
		fmt.Fprintf(l.out, "FAIL  %6.2f s  %s\n", s.Took.Seconds(), s.Name)
		for _, line := range shorten(s.Message) {
			fmt.Fprintf(l.out, "      | %s\n", walk.Printable(line))
		}
	}
}

// shorten leaves out the Go values that gomega prints below an error.
func shorten(message string) []string {
	var kept []string
	end := ""
	for line := range strings.Lines(strings.TrimSpace(message)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case end != "":
			if line == end {
				end = ""
			}
		case strings.TrimSpace(line) == "{":
			end = strings.Replace(line, "{", "}", 1)
		default:
			kept = append(kept, line)
		}
	}
	return kept
}

// firstLine is the one that says most.
func firstLine(message string) string {
	for line := range strings.Lines(message) {
		if strings.Contains(line, "rpc error: ") {
			return strings.TrimSpace(line)
		}
	}
	line, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	return line
}

// summary says it all in the end, the failures once more.
func (r *report) summary(out io.Writer) {
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped, %v\n", r.Passed, r.Failed, r.Skipped, r.took.Round(10*time.Millisecond))
	for _, s := range r.Specs {
		if s.Outcome == sanity.Failed {
			fmt.Fprintf(out, "  failed: %s: %s\n", s.Name, walk.Printable(firstLine(s.Message)))
		}
	}
}
