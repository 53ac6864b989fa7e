package walk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// subject is a part of the walk that stands alone.
type subject struct {
	name  string
	title string
	why   func(*Walk) string // it is not walked; "": it is
	run   func(*Walk, context.Context) error
}

func subjects() []subject {
	return []subject{
		{"life", "", always, (*Walk).life},
		{"mountgroup", "a volume that belongs to a group", (*Walk).noMountGroup, (*Walk).mountGroup},
		{"modify", "a volume that is modified", (*Walk).noModify, (*Walk).modify},
		{"snapshot", "a snapshot, and volumes restored from it", needs(csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT), (*Walk).snapshots},
		{"clone", "a clone", needs(csi.ControllerServiceCapability_RPC_CLONE_VOLUME), (*Walk).clone},
		{"group", "a group snapshot, and volumes restored from it", (*Walk).noGroups, (*Walk).group},
		{"metadata", "what snapshots hold, and what changed between them", (*Walk).noMetadata, (*Walk).snapshotMetadata},
		{"inline", "inline volumes of pods", (*Walk).noInline, (*Walk).inline},
	}
}

// Subjects are the names for Options.Only.
func Subjects() []string {
	var names []string
	for _, s := range subjects() {
		names = append(names, s.name)
	}
	return names
}

func always(*Walk) string { return "" }

func needs(c csi.ControllerServiceCapability_RPC_Type) func(*Walk) string {
	return func(w *Walk) string {
		if w.can.controller[c] {
			return ""
		}
		return notAdvertised(c.String())
	}
}

func notAdvertised(names ...string) string { return "not advertised: " + strings.Join(names, ", ") }

// walk walks all subjects, also after one that failed, and says what became of
// each. A driver that does not answer any more, or that leaves something behind,
// is not asked further.
func (w *Walk) walk(ctx context.Context) error {
	var errs []error
	var lines []string
	for _, s := range subjects() {
		if len(w.o.Only) > 0 && !slices.Contains(w.o.Only, s.name) {
			continue
		}
		if why := s.why(w); why != "" {
			lines = append(lines, fmt.Sprintf("%-12s%s", s.name, why))
			continue
		}
		err := w.one(ctx, s)
		lines = append(lines, fmt.Sprintf("%-12s%s", s.name, w.outcome(err)))
		if err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		if ctx.Err() != nil || len(w.made) > 0 || gone(err) {
			break
		}
	}
	if !slices.Equal(w.o.Only, []string{"life"}) {
		w.Section("what was walked")
		fmt.Fprintln(w.Out, strings.Join(lines, "\n"))
	}
	return errors.Join(errs...)
}

func (w *Walk) outcome(err error) string {
	switch {
	case err != nil:
		return "FAILED"
	case w.unseen:
		return "passed by its answers; no data was looked at"
	}
	return "passed"
}

// one walks a subject and takes back what is left of it.
func (w *Walk) one(ctx context.Context, s subject) error {
	if s.title != "" {
		w.Section(s.title)
	}
	w.contents, w.unseen = nil, w.o.NoData
	err := s.run(w, ctx)
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted: %w", cmp.Or(err, ctx.Err()))
	}
	if err != nil {
		fmt.Fprintf(w.Out, "\nwrong: %s\n", Printable(err.Error()))
	}
	return errors.Join(err, w.cleanUp(ctx))
}

// steps runs one after the other, until one fails or the walk is interrupted.
func steps(ctx context.Context, list ...func(context.Context) error) error {
	for _, step := range list {
		if err := step(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
