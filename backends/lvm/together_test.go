package lvm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// queued runs calls that all wait for the VG's turn before the first has it.
func queued(t *testing.T, b *Backend, calls ...func() error) []error {
	t.Helper()
	leave, err := b.turn(t.Context(), b.order[0])
	if err != nil {
		t.Fatal(err)
	}
	errs := make([]error, len(calls))
	var all sync.WaitGroup
	for i, call := range calls {
		all.Go(func() { errs[i] = call() })
		synctest.Wait() // in this order
	}
	leave()
	all.Wait()
	return errs
}

func record(b *Backend, id string, format backends.FormatState) func() error {
	return func() error {
		return b.RecordFormat(ctxOf(), backends.RecordFormatRequest{ID: id, FSType: "ext4", Format: format})
	}
}

// drain is how many commands of a kind were run since the last time.
func (f *fakeVG) drain(kind string) (n int) {
	for _, c := range f.commands {
		if strings.HasPrefix(c, kind+" ") {
			n++
		}
	}
	f.commands = nil
	return n
}

// Volumes that are formatted, or deleted, at the same time have the commands for it
// together.
func TestTogether(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		f := newFake()
		b := onFake(t, f, testOptions())
		var ids []string
		for i := range 8 {
			ids = append(ids, createVolume(t, b, fmt.Sprint(i), []string{"linear", "thin"}[i%2], 8<<20).ID)
		}
		var started, done, deletes []func() error
		for _, id := range ids {
			started = append(started, record(b, id, backends.FormatStarted))
			done = append(done, record(b, id, backends.FormatDone))
			deletes = append(deletes, func() error { return b.DeleteVolume(ctxOf(), backends.DeleteVolumeRequest{ID: id}) })
		}
		f.commands = nil
		if err := errors.Join(queued(t, b, started...)...); err != nil {
			t.Error(err)
		}
		if n := f.drain("lvchange"); n != 2 { // thin ones are also kept from being activated at boot
			t.Errorf("started: %d commands", n)
		}
		// Of one volume both, in the order in which they came.
		if err := errors.Join(queued(t, b, append(slices.Clone(started[:1]), done...)...)...); err != nil {
			t.Error(err)
		}
		if n := f.drain("lvchange"); n != 1 {
			t.Errorf("done: %d commands", n)
		}
		for _, id := range ids {
			if _, v, err := b.peekReady(t.Context(), id); err != nil || v.own.Format != "ext4:done" {
				t.Errorf("%s: %+v, %v", id, v, err)
			}
		}
		if err := errors.Join(queued(t, b, deletes...)...); err != nil {
			t.Error(err)
		}
		if ready, other := f.mine(); ready+other != 0 {
			t.Errorf("%d ready, %d not", ready, other)
		}
		f.commands = slices.DeleteFunc(f.commands, func(c string) bool { return strings.HasPrefix(c, "lvs ") })
		if n := len(f.commands); n > 8 { // 12 one after the other
			t.Errorf("delete: %d commands: %q", n, f.commands)
		}
	})
}

// Who is in the way of the others fails alone.
func TestTogetherOneFails(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		for _, kind := range []string{"lvchange", "lvremove"} {
			f := newFake()
			b := onFake(t, f, optionsFor("thin"))
			var calls []func() error
			for i := range 4 {
				v := createVolume(t, b, fmt.Sprint(i), "thin", 8<<20)
				if kind == "lvchange" {
					calls = append(calls, record(b, v.ID, backends.FormatStarted))
				} else {
					calls = append(calls, func() error { return b.DeleteVolume(ctxOf(), backends.DeleteVolumeRequest{ID: v.ID}) })
				}
			}
			bad := f.lvs[3]
			f.before = func(args []string) error {
				if args[0] == kind && args[len(args)-1] == testVG+"/"+bad.name {
					return exit(5, "in use")
				}
				if args[0] == kind && slices.Contains(args, testVG+"/"+bad.name) {
					_, _ = f.run(append(args[:len(args)-1:len(args)-1], testVG+"/"+f.lvs[1].name)) // as lvm does: some are done
					return exit(5, "in use")
				}
				return nil
			}
			for i, err := range queued(t, b, calls...) {
				if (err != nil) != (i == 2) {
					t.Errorf("%s: %d: %v", kind, i, err)
				}
			}
		}
	})
}

// Who goes before it is his request's turn has asked for nothing; who goes when it is being
// made is told how it ended.
func TestTogetherCancelled(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		f := newFake()
		b := onFake(t, f, optionsFor("thin"))
		v := createVolume(t, b, "a", "thin", 8<<20)
		w := createVolume(t, b, "b", "thin", 8<<20)
		for _, when := range []string{"waiting", "meanwhile"} {
			ctx, cancel := context.WithCancel(t.Context())
			f.before = func(args []string) error {
				if args[0] == "lvchange" {
					cancel()
				}
				return nil
			}
			format := map[string]string{"waiting": "xfs", "meanwhile": "btrfs"}[when]
			mine := func() error {
				return b.RecordFormat(ctx, backends.RecordFormatRequest{ID: w.ID, FSType: format, Format: backends.FormatStarted})
			}
			leave, err := b.turn(t.Context(), b.order[0])
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 2)
			go func() {
				ended <- b.RecordFormat(ctxOf(), backends.RecordFormatRequest{ID: v.ID, FSType: format, Format: backends.FormatStarted})
			}()
			go func() { ended <- mine() }()
			synctest.Wait()
			if when == "waiting" {
				cancel()
				synctest.Wait()
			}
			leave()
			errs := []error{<-ended, <-ended}
			cancel()
			_, now, err := b.peekReady(t.Context(), w.ID)
			if err != nil {
				t.Fatal(err)
			}
			if made := now.own.Format == format+":started"; made != (when == "meanwhile") {
				t.Errorf("%s: it is %q, %v", when, now.own.Format, errs)
			}
			if failed := errors.Join(errs...) != nil; failed != (when == "waiting") {
				t.Errorf("%s: %v", when, errs)
			}
		}
	})
}

// What was planned before a command ran is looked at again after it: a snapshot that
// somebody else has made meanwhile would go with its volume (lvremove --yes).
func TestTogetherLooksAgain(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		f := newFake()
		b := onFake(t, f, optionsFor("linear"))
		first := createVolume(t, b, "a", "linear", 8<<20)
		c, v, err := b.peekVolume(t.Context(), createVolume(t, b, "b", "linear", 8<<20).ID, kindVolume)
		if err != nil {
			t.Fatal(err)
		}
		f.after = func(args []string) error {
			if args[0] == "lvchange" {
				f.lvs = append(f.lvs, &fakeLV{name: "foreign", uuid: f.newUUID(), typ: "linear", extents: 1, cow: true, origin: v.name})
			}
			return nil
		}
		f.commands = nil
		errs := queued(t, b, record(b, first.ID, backends.FormatStarted), func() error { return b.removeTogether(ctxOf(), c, v) })
		if errs[0] != nil || !errors.Is(errs[1], backends.ErrInUse) {
			t.Error(errs)
		}
		if f.drain("lvremove") != 0 {
			t.Error("removed, with another's snapshot of it")
		}
	})
}

// A panic of who is at the VG for others fails their calls; nobody waits for ever.
func TestTogetherPanic(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		f := newFake()
		b := onFake(t, f, optionsFor("linear"))
		v := createVolume(t, b, "a", "linear", 8<<20)
		broken := func() (err error) {
			defer func() { err = fmt.Errorf("panic: %v", recover()) }()
			return b.together(ctxOf(), b.order[0], func(*group) ([]string, string, error) { panic("a plan") })
		}
		errs := queued(t, b, broken, record(b, v.ID, backends.FormatStarted))
		if errs[0] == nil || !errors.Is(errs[1], backends.ErrUnavailable) {
			t.Error(errs)
		}
		if err := record(b, v.ID, backends.FormatStarted)(); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}
