package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// planted are faults of a kind that the matrix is there to find: one line of the
// driver is replaced.
var planted = []struct {
	name, file, old, new string
	found                kase // by this case, which a good driver passes
	says                 string
}{
	{
		"what a killed create left is not removed", "backends/loopfile/recover.go",
		"for _, parent := range []string{tmpDir, trashDir} {", "for _, parent := range []string{trashDir} {",
		kase{&scenario{name: "CreateVolume thin"}, kill{point: "loopfile.create.built", n: 1}, undo}, "found, and not expected: file POOL/.tmp",
	},
	{
		"a format counts as done when it begins", "mounter/format.go",
		"s.setFormat(formatStarted, fsType)", "s.setFormat(formatDone, fsType)",
		kase{&scenario{name: "NodeStageVolume ext4, new"}, kill{point: "mounter.format.started", n: 1}, retry}, "a final code",
	},
	{
		"a half-written meta keeps a deleted volume in the trash", "backends/loopfile/delete.go",
		"append(members, frozenFile, metaNew, metaFile)", "append(members, frozenFile, metaFile)",
		kase{&scenario{name: "NodeStageVolume ext4, new"}, kill{point: "loopfile.meta.written", n: 1}, undo}, "found, and not expected: file POOL/.trash",
	},
}

// TestPlanted: the matrix finds each of them, so it can fail.
func TestPlanted(t *testing.T) {
	t.Parallel()
	b := newBench(t, build(t, plant(t)))
	for _, p := range planted {
		t.Run(p.name, func(t *testing.T) {
			c := p.found
			for _, s := range scenarios() {
				if s.name == c.s.name {
					c.s = s
				}
			}
			ref, err := b.refer(t.Context(), c.s, false)
			if err != nil {
				t.Fatal(err)
			}
			b.settles = 8 * time.Second // what never settles is looked for
			_, err = c.play(t.Context(), b, ref)
			b.settles = patience
			if err == nil || !strings.Contains(err.Error(), p.says) {
				t.Errorf("%s does not find it: %v", c, err)
			}
		})
	}
}

// plant writes the faults down as an overlay of go build.
func plant(t *testing.T) (overlay string) {
	t.Helper()
	dir, replace := t.TempDir(), map[string]string{}
	for i, p := range planted {
		file, err := filepath.Abs(filepath.Join("../..", p.file))
		if err != nil {
			t.Fatal(err)
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(source), p.old) != 1 || replace[file] != "" {
			t.Fatalf("%s: %q is not there once any more", p.file, p.old)
		}
		replace[file] = filepath.Join(dir, fmt.Sprint(i, ".go"))
		if err := os.WriteFile(replace[file], []byte(strings.Replace(string(source), p.old, p.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	overlay = filepath.Join(dir, "overlay.json")
	if err := errors.Join(err, os.WriteFile(overlay, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	return overlay
}
