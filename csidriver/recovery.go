package csidriver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/csikit/csikit/backends"
)

// Pauses between two tries to recover.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// recover lets both halves finish or undo what an earlier process left half-done,
// and then opens the gate. The node comes first: its records say what is in use.
// An error ends the driver, so that its supervisor sees it, save one that says
// that the storage is away.
func (d *Driver) recover(ctx context.Context) error {
	if d.engine != nil {
		if err := d.retry(ctx, "node", d.engine.Start); err != nil {
			return err
		}
	}
	if r := d.features.controller.Recoverer; r != nil && d.cfg.Serve&ServeController != 0 {
		if err := d.retry(ctx, "controller", r.RecoverController); err != nil {
			return err
		}
	}
	d.ready.Store(true)
	d.logger.InfoContext(ctx, "recovered, all calls are served", slog.Any("capabilities", d.features.names(d.cfg.Serve)))
	return nil
}

// endOfRecovery waits for a recovery that was told to stop. One that hangs in the
// storage is left behind, named.
func endOfRecovery(recovered <-chan error, wait time.Duration) error {
	if err, ok := await(recovered, wait); ok {
		return err
	}
	return &DrainError{Cut: []string{"recovery, which does not end"}}
}

func (d *Driver) retry(ctx context.Context, half string, fn func(context.Context) error) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := d.guarded("recovery", func() error { return fn(ctx) })
		if err == nil {
			return nil
		}
		err = fmt.Errorf("csidriver: recover %s: %w", half, err)
		if !errors.Is(err, backends.ErrUnavailable) && !errors.Is(err, backends.ErrNotReady) {
			return err
		}
		d.logger.WarnContext(ctx, "recovery is tried again", slog.String("half", half),
			slog.Duration("in", pause), slog.String("error", err.Error()))
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}
