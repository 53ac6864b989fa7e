package check

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/mounter/mnt"
)

// cleanup takes back what the check did, and names what stays. Its time is its own.
func (t *T) cleanup(ctx context.Context) (left []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*t.cfg.CallTimeout)
	defer cancel()
	t.ctx = ctx
	for _, kinds := range [][]string{{"publish"}, {"stage"}, {"attach"}} {
		t.undo(kinds...)
	}
	for _, d := range t.ledger.owed("name of a volume", "name of a snapshot", "name of a group") {
		_, err := t.Try(d.undo) // made, or made again: then it is known, and can be deleted
		if err == nil || !transient(err) {
			t.ledger.forgive(d)
		}
	}
	for range 2 { // what holds on to another may be earlier or later
		t.undo("group", "snapshot", "volume")
	}
	for _, d := range t.ledger.owed("publish", "stage", "attach", "group", "snapshot", "volume") {
		_, err := t.Try(d.undo)
		if err == nil {
			continue
		}
		left = append(left, d.what)
		if !t.Failed() {
			t.Failf(d.clause, "taking back: %s: %s", Name(d.undo), describe(err))
		}
	}
	for _, d := range t.ledger.owed("name of a volume", "name of a snapshot", "name of a group") {
		left = append(left, "perhaps something by the "+d.what)
	}
	return append(left, t.removeDir()...)
}

func (t *T) undo(kinds ...string) {
	for _, d := range t.ledger.owed(kinds...) {
		_, err := t.patiently(d.undo, func(spent time.Duration, _ int, _ error) bool { return spent < t.cfg.CallTimeout/2 })
		code, made := status.Code(err), d.kind == "group" || d.kind == "snapshot" || d.kind == "volume"
		if !made && (code == codes.NotFound || code == codes.InvalidArgument && d.doubt) {
			t.ledger.forgive(d) // nothing was done
		}
	}
}

// removeDir removes the directories of the check, which a CO makes, and the CO is
// us; and nothing that is in them: it may be a volume's.
func (t *T) removeDir() (left []string) {
	if t.dir == "" {
		return nil
	}
	left = t.endMounts()
	var dirs []string
	// An error of the walk is that of a directory which is then left below.
	_ = filepath.WalkDir(t.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		_ = os.Remove(d) // not empty: the last one tells
	}
	if _, err := os.Lstat(t.dir); !errors.Is(err, fs.ErrNotExist) {
		var names []string
		_ = filepath.WalkDir(t.dir, func(path string, _ fs.DirEntry, _ error) error {
			if len(names) < 5 {
				names = append(names, path)
			}
			return nil
		})
		left = append(left, "files below "+t.dir+": "+strings.Join(names, ", "))
		if !t.Failed() && t.cfg.Host {
			t.Failf(t.undoneBy(names), "after all was unpublished and unstaged there is something left: %s", strings.Join(names, ", "))
		}
	}
	return left
}

// undoneBy are the clauses of what should have taken files away: of unstaging, below
// a staging path, else of unpublishing.
func (t *T) undoneBy(names []string) string {
	for _, n := range names {
		if strings.HasPrefix(n, filepath.Join(t.dir, StagingDir)) {
			return "NU-02"
		}
	}
	return "NB-02 NB-04"
}

// endMounts names the mounts below the check's directory, and ends them: what is
// mounted must not be taken for the directory's.
func (t *T) endMounts() (left []string) {
	all, err := mnt.List()
	if err != nil {
		return nil // no such thing on this system
	}
	for _, m := range slices.Backward(all) {
		if !strings.HasPrefix(m.Point, t.dir+"/") {
			continue
		}
		left = append(left, "mount of "+m.Source+" at "+m.Point)
		if !t.Failed() {
			t.Failf("NU-02 NB-02", "after all was unpublished and unstaged %s is still mounted at %s", m.Source, m.Point)
		}
		_, _ = mnt.Detach(m.Point) // then it stays, and is named
	}
	return left
}
