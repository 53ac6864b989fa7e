package report

import (
	_ "embed" // of the page
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/csikit/csikit/sanity/internal/check"
)

//go:embed report.html
var page string

// family is the results of one family of checks: H-05, csi-sanity.
type family struct {
	Name    string
	Results []check.Result
	Count   map[check.Verdict]int
}

// pageData is what the page shows.
type pageData struct {
	*Report
	Took     time.Duration
	Families []family
	Words    func(string) string
}

// WriteHTML writes the report as one page for people, which needs nothing but
// itself. words says a clause in words, or "".
func (r *Report) WriteHTML(w io.Writer, words func(clause string) string) error {
	if words == nil {
		words = func(string) string { return "" }
	}
	t, err := template.New("report").Funcs(template.FuncMap{
		"count":    func(v string) int { return r.Count(check.Verdict(v)) },
		"having":   func(v string) []check.Result { return r.With(check.Verdict(v)) },
		"class":    func(v check.Verdict) string { return strings.ToLower(strings.ReplaceAll(string(v), " ", "")) },
		"short":    shortTime,
		"first":    FirstLine,
		"rest":     rest,
		"words":    func(clause string) string { return strings.ReplaceAll(words(clause), "->", "\u2192") },
		"verdicts": check.Verdicts,
		"last":     func(calls []check.Call) []check.Call { return calls[max(0, len(calls)-1):] },
		"before":   func(calls []check.Call) []check.Call { return calls[:max(0, len(calls)-1)] },
		"folded":   folded,
	}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, pageData{Report: r, Took: time.Duration(r.Seconds * float64(time.Second)), Families: r.families(), Words: words})
}

// rest is a message without its first line.
func rest(message string) string {
	_, more, _ := strings.Cut(strings.TrimSpace(message), "\n")
	return more
}

// folded is a long command in lines, as a shell takes it.
func folded(command string) string {
	if len(command) < 80 || strings.ContainsAny(command, `'"\\`) {
		return command
	}
	return strings.ReplaceAll(command, " --", " \\\n  --")
}

func shortTime(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// families are the results in groups, in order.
func (r *Report) families() []family {
	var all []family
	index := map[string]int{}
	for _, res := range r.Results {
		name, _, _ := strings.Cut(res.ID, "/")
		i, ok := index[name]
		if !ok {
			i = len(all)
			index[name] = i
			all = append(all, family{Name: name, Count: map[check.Verdict]int{}})
		}
		all[i].Results = append(all[i].Results, res)
		all[i].Count[res.Verdict]++
	}
	return all
}
