package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Source extracts this module as it was at a commit and returns the directory,
// to build an earlier release of a driver. It needs the history of the
// repository: a shallow clone, or a copy without one, lacks it (class history).
func Source(t testing.TB, commit string) string {
	t.Helper()
	Tool(t, "git", "tar")
	root, dir := moduleRoot(t), t.TempDir()
	// A repository that belongs to somebody else is refused without the first option.
	git := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), "git", append([]string{"-c", "safe.directory=*", "-C", root}, args...)...)
	}
	if err := git("cat-file", "-e", commit+"^{commit}").Run(); err != nil {
		missing(t, "history", "commit "+commit+" of this repository (a shallow clone, or none)")
	}
	tarball := filepath.Join(t.TempDir(), "source.tar")
	if out, err := git("archive", "-o", tarball, commit).CombinedOutput(); err != nil {
		t.Fatalf("git archive: %v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "tar", "-xf", tarball, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	if err := os.Remove(tarball); err != nil {
		t.Fatal(err)
	}
	return dir
}
