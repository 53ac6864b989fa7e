package nfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/csikit/csikit/backends"
)

// Backend serves shares. Both halves are on it; a process that serves one of them
// says so in Options.Half.
type Backend struct {
	o   Options
	log *slog.Logger

	workers *workers

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup // what goes on in the background

	step   func(string) // tests stop the process there, on a local share
	jobs   jobs         // snapshots that are being copied
	copies chan int     // lanes for copies that nobody uses
	purges purges       // trash that is being emptied
	usage  usages       // of QuotaGuard
	pins   *pins        // which shares the shares are
}

// New makes a Backend. It does not look at any share: those may come later.
func New(o Options) (*Backend, error) {
	o.Shares = append([]Share(nil), o.Shares...)
	if err := o.check(); err != nil {
		return nil, err
	}
	b := &Backend{o: o, log: o.Logger, workers: newWorkers(o.Logger), pins: newPins(&o)}
	b.copies = make(chan int, maxCopies)
	for n := range maxCopies {
		b.copies <- n
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b, nil
}

// Close ends what goes on in the background; the next process goes on with it.
func (b *Backend) Close() error {
	b.stop()
	b.workers.close()
	b.wg.Wait()
	return nil
}

// Traits of this driver.
func (b *Backend) Traits() backends.Traits { return Traits(b.o) }

// serves refuses what belongs to the half that another process serves.
func (b *Backend) serves(h Half) error {
	if b.o.Half&h != h {
		return fmt.Errorf("%w: this process does not serve that half of the driver", backends.ErrUnavailable)
	}
	return nil
}

// parse is parseHandle by Options.Legacy. Who does not take volumes of csi-driver-nfs over
// is not asked for them, but by a mistake; what is surely one is not forgotten by it.
func (b *Backend) parse(id string) (handle, error) {
	h, err := parseHandle(id)
	if b.o.Legacy != LegacyRefuse || err == nil && !h.legacy() || errors.Is(err, errNoHandle) {
		return h, err
	}
	if surelyLegacy(id) {
		return handle{}, fmt.Errorf("%w: %q may be a volume of csi-driver-nfs, and this driver was not told to take those over (Options.Legacy)", backends.ErrPrecondition, id)
	}
	return handle{}, errNoHandle
}

// decode reads an ID of the kind that tag says; missing is the answer to one that is
// nobody's. What csi-driver-nfs has made is there, and has to be said so, also where this
// driver does not touch it. The share it names has to be configured, or AnyShare set: else what is
// there cannot be known, and "not found" would be a guess.
func (b *Backend) decode(id, tag string, missing error) (handle, error) {
	h, err := b.parse(id)
	ours := err == nil && !h.legacy()
	switch {
	case ours && h.tag != tag, errors.Is(err, errNoHandle):
		return handle{}, missing
	case !ours && tag == snapshotTag && legacySnapshot(id):
		return handle{}, fmt.Errorf("%w: %q may be a snapshot of csi-driver-nfs, a tar file that this driver does not read: it is left alone", backends.ErrPrecondition, id)
	case !ours && tag != volumeTag:
		return handle{}, missing
	case err != nil:
		return handle{}, err
	}
	if h.legacy() && h.onDelete == "" {
		h.onDelete = b.o.OnDelete
	}
	if h.share.Name != "" {
		s, ok := b.configured(h.share.Name)
		if !ok {
			return handle{}, fmt.Errorf("%w: %s: share %q is not configured", backends.ErrUnavailable, id, h.share.Name)
		}
		h.share = s
		return h, nil
	}
	s, err := b.known(h.share)
	if err != nil {
		return handle{}, fmt.Errorf("%w: %s: %w", backends.ErrUnavailable, id, err)
	}
	h.share = s
	return h, nil
}

// Keys of a volume's context, as csi-driver-nfs has them: a PersistentVolume written
// by hand has them too, with any handle.
const (
	ctxServer  = "server"
	ctxShare   = "share"
	ctxSubDir  = "subDir"
	ctxOptions = "mountOptions"
	// ctxKey is of the handle, in contexts that the controller made: with the context of
	// a volume another ID is of none.
	ctxKey = "volumeKey"
)

// contextOf is Volume.Context: what a node needs to mount it.
func contextOf(s Share, key, subDir string, options []string) map[string]string {
	c := map[string]string{ctxSubDir: subDir}
	if key != "" {
		c[ctxKey] = key
	}
	if s.Name != "" {
		c[ctxShare] = s.Name
	} else {
		c[ctxServer], c[ctxShare] = s.Server, s.Export
	}
	if len(options) > 0 {
		c[ctxOptions] = joinOptions(options)
	}
	return c
}
