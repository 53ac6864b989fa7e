package kubernetes

import (
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// least is how many specs of External.Storage must run, by kind (e2e/KIND.yaml).
var least = map[string]int{
	"loopfile":           110,
	"loopfile-ext4":      1,
	"loopfile-btrfs":     1,
	"loopfile-immediate": 1,
	"lvm-linear":         108,
	"lvm-thin":           114,
	"lvm-thin-immediate": 1,
	"nfs":                57,
	"nfs-quota":          64,
}

// without is the specs, by kind, that cannot pass with the sidecars of its variant, as a
// regular expression.
var without = map[string]string{
	// A sidecar of a node deletes the snapshots whose content has its node's label, which
	// snapshot-controller sets on contents that it makes itself. These specs make theirs.
	"lvm-linear": `Pre-provisioned Snapshot`,
}

// TestExternalStorage runs Kubernetes' own suite for storage drivers: every spec that
// what the driver declares lets run. It takes long, and is run when asked for.
func TestExternalStorage(t *testing.T) {
	focus, kind := os.Getenv("CSIKIT_E2E"), os.Getenv("CSIKIT_E2E_DRIVER")
	if kind == "" {
		kind = "loopfile"
	}
	if focus == "" {
		t.Skip("CSIKIT_E2E=External.Storage runs it, or another focus")
	}
	for _, p := range []string{"e2e.test", "ginkgo", "agnhost"} {
		if _, err := os.Stat(filepath.Join(binaries(), p)); err != nil {
			t.Fatalf("%s is not built: build.sh e2e agnhost", p)
		}
	}
	v, err := variantOf(kind)
	if err != nil {
		t.Fatal(err)
	}
	atLeast, ok := least[kind]
	if !ok {
		t.Fatalf("how many specs must run against %s, nobody has said", kind)
	}
	// Each spec has a class of its own, which no pod is scheduled for before the
	// provisioner has said how much space there is; it says one thing a second.
	v.edit = strings.NewReplacer(`- "--enable-capacity"`, `- "--enable-capacity"
        - "--kube-api-capacity-qps=50"
        - "--kube-api-capacity-burst=100"`)
	d := deploy(t, v)
	t.Setenv("WITHOUT", without[kind])
	out, runErr := script("e2e.sh", "e2e/"+kind+".yaml", focus)
	t.Log(out)
	report := readReport(t, filepath.Join(state(), "e2e", "junit.xml"))
	fmt.Print(report)
	if dir := os.Getenv("CSIKIT_E2E_OUT"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "e2e-"+kind+".md"), []byte(report.String()), 0o644); err != nil {
			t.Error(err)
		}
		for _, f := range []string{"e2e.log", "junit.xml"} {
			if b, err := os.ReadFile(filepath.Join(state(), "e2e", f)); err == nil {
				_ = os.WriteFile(filepath.Join(dir, f), b, 0o644)
			}
		}
		_ = os.WriteFile(filepath.Join(dir, "driver.log"), []byte(d.log(-1)), 0o644)
	}
	note("External.Storage: specs that ran", v.name, fmt.Sprintf("%d, %d failed", report.ran, len(report.failed)))
	if len(report.failed) > 0 || runErr != nil {
		t.Errorf("%v: %v", runErr, report.failed)
	}
	if focus != "External.Storage" || os.Getenv("SKIP") != "" {
		atLeast = 1 // of a part
	}
	if report.ran < atLeast {
		t.Errorf("%d specs ran, fewer than %d", report.ran, atLeast)
	}
}

// report is what became of the specs.
type report struct {
	ran     int
	failed  []string
	skipped map[string]int // by reason
	byKind  map[string]int // that ran, by test pattern
}

func readReport(t *testing.T, path string) *report {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var suites struct {
		Suites []struct {
			Cases []struct {
				Name    string `xml:"name,attr"`
				Status  string `xml:"status,attr"`
				Skipped *struct {
					Message string `xml:"message,attr"`
				} `xml:"skipped"`
				Err string `xml:"system-err"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b, &suites); err != nil {
		t.Fatal(err)
	}
	r := &report{skipped: map[string]int{}, byKind: map[string]int{}}
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			switch {
			case !strings.Contains(c.Name, "External Storage"):
			case c.Status == "passed":
				r.ran++
				r.byKind[testPattern(c.Name)]++
			case c.Status == "skipped" && (c.Skipped == nil || reason(c.Skipped.Message) == ""):
				// not selected
			case c.Status == "skipped":
				r.skipped[reason(c.Skipped.Message)]++
			default:
				r.ran++
				r.failed = append(r.failed, c.Status+": "+c.Name)
			}
		}
	}
	return r
}

var pattern = regexp.MustCompile(`\[Testpattern: ([^\]]*)\]`)

func testPattern(name string) string {
	if m := pattern.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return "other"
}

// quantities differ between specs that are skipped for one reason.
var quantities = regexp.MustCompile(`\s+`)

func reason(message string) string {
	message = strings.TrimPrefix(message, "skipped")
	message = strings.TrimLeft(message, " -:")
	return quantities.ReplaceAllString(message, " ")
}

func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "External.Storage: %d ran, %d failed\n\n", r.ran, len(r.failed))
	for _, f := range r.failed {
		fmt.Fprintf(&b, "- %s\n", f)
	}
	b.WriteString("\n| pattern | ran |\n|---|---|\n")
	for _, k := range slices.Sorted(maps.Keys(r.byKind)) {
		fmt.Fprintf(&b, "| %s | %d |\n", k, r.byKind[k])
	}
	b.WriteString("\n| skipped | why |\n|---|---|\n")
	for _, k := range slices.SortedFunc(maps.Keys(r.skipped), func(a, c string) int { return r.skipped[c] - r.skipped[a] }) {
		fmt.Fprintf(&b, "| %d | %s |\n", r.skipped[k], k)
	}
	return b.String()
}
