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

// lines prints a line for each check that has ended, and on a terminal the name
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

func (l lines) Begin(id string) {
	if l.terminal {
		fmt.Fprintf(l.out, "%srun   %.70s", eraseLine, id) // no wider than a terminal
	}
}

func (l lines) End(r sanity.Result) {
	if l.terminal {
		fmt.Fprint(l.out, eraseLine)
	}
	switch r.Verdict {
	case sanity.Pass:
		fmt.Fprintf(l.out, "ok    %6.2f s  %s\n", r.Took.Seconds(), r.ID)
	case sanity.NotApplicable:
		fmt.Fprintf(l.out, "n/a             %s (%s)\n", r.ID, walk.Printable(firstLine(r.Message)))
	case sanity.NotRun:
		fmt.Fprintf(l.out, "skip            %s (%s)\n", r.ID, walk.Printable(firstLine(r.Message)))
	default:
		fmt.Fprintf(l.out, "%-4s  %6.2f s  %s\n", r.Verdict, r.Took.Seconds(), r.ID)
		l.explain(&r)
	}
}

// explain says what is wrong, in which call, and how to see it again.
func (l lines) explain(r *sanity.Result) {
	say := func(format string, args ...any) { fmt.Fprintf(l.out, "      | "+format+"\n", args...) }
	for _, line := range shorten(r.Message) {
		say("%s", walk.Printable(line))
	}
	if len(r.Broken) > 0 {
		say("clauses %s", strings.Join(r.Broken, ", "))
	}
	if n := len(r.Calls); n > 0 && r.Verdict == sanity.Fail {
		c := r.Calls[n-1]
		say("%s %s", c.Method, c.Request)
		say("  %s %s", c.Code, c.Response)
	}
	say("%s", r.Reproduce)
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
func summary(out io.Writer, r *sanity.Report) {
	fmt.Fprintf(out, "\n%d passed, %d failed, %d warnings, %d not run, %d not applicable, %v\n", r.Count(sanity.Pass), r.Count(sanity.Fail),
		r.Count(sanity.Warn), r.Count(sanity.NotRun), r.Count(sanity.NotApplicable), time.Duration(r.Seconds*float64(time.Second)).Round(10*time.Millisecond))
	if n := r.Count(sanity.NotRun); n > 0 && n == len(r.Results) {
		fmt.Fprintln(out, "  nothing could be run, for the reasons above")
	}
	for _, f := range r.With(sanity.Fail) {
		fmt.Fprintf(out, "  failed: %s: %s\n", f.ID, walk.Printable(firstLine(f.Message)))
	}
}

// quote is a word of a command line.
func quote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n'\"\\$`*?[]{}()<>|&;#~!") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
