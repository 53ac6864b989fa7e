package sanity

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// updateEnv makes SkipsFile be written and not compared.
const updateEnv = "CSIKIT_SANITY_UPDATE"

const skipsHeader = "# Specs of csi-sanity that are skipped. " + updateEnv + "=1 writes this file anew.\n"

// checkSkips compares the skipped specs with a file, or writes it.
func checkSkips(file string, results []Result, update bool) error {
	var got []string
	for _, r := range results {
		name, ok := strings.CutPrefix(r.ID, csiSanity+"/")
		if ok && r.Verdict == NotApplicable {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	got = slices.Compact(got)
	if update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, []byte(skipsHeader+lines(got)), 0o644)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("sanity: %w (%s=1 writes it)", err, updateEnv)
	}
	var want []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			want = append(want, line)
		}
	}
	more, less := without(got, want), without(want, got)
	if len(more)+len(less) == 0 {
		return nil
	}
	return fmt.Errorf("sanity: other specs are skipped than %s says (%s=1 writes it anew)\nskipped, and not listed:\n%slisted, and not skipped:\n%s",
		file, updateEnv, lines(more), lines(less))
}

func lines(names []string) string {
	var b strings.Builder
	for _, n := range names {
		b.WriteString(n + "\n")
	}
	return b.String()
}

// without is a less b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}
