// Command run holds csikit's harness to package mutants: each mutant must be caught
// by a check of a clause that it breaks, no valid variant may get a FAIL. It prints
// a table and exits 1 when one is not so. It needs root, and programs that make file
// systems.
//
//	run                          all of them
//	run -only 'create-.*'        some
//	run -survivors FILE          and a list of those that live
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/csikit/csikit/sanity"
	"github.com/csikit/csikit/test/mutants"
)

func main() {
	// csi-sanity runs in a process of its own, which is this program again.
	if was, err := sanity.Child(); was {
		end(err)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv(envInside) == "" {
		end(inNamespace(ctx))
		return
	}
	end(run(ctx))
}

func end(err error) {
	if err == nil {
		return
	}
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	os.Exit(1)
}

// options are the flags.
type options struct {
	only      string
	workers   int
	survivors string
	thorough  bool
	variants  bool
	mutants   bool
	clauses   string
	record    string
}

func parse() *options {
	o := new(options)
	flag.StringVar(&o.only, "only", "", "regular expression of names")
	flag.IntVar(&o.workers, "workers", 6, "how many at a time")
	flag.StringVar(&o.survivors, "survivors", "", "file for a list of what is not as it should be")
	flag.BoolVar(&o.thorough, "thorough", true, "run all checks against a mutant that those of its clauses did not catch")
	flag.BoolVar(&o.mutants, "mutants", true, "run the mutants")
	flag.BoolVar(&o.variants, "variants", true, "run the variants")
	flag.StringVar(&o.clauses, "clauses", "testdata/clauses.tsv", "the clauses of the spec")
	flag.StringVar(&o.record, "record", "cmd/csikit/internal/clauses/mutants.tsv", "what caught each when it was last run: that is tried first")
	flag.Parse()
	return o
}

func run(ctx context.Context) (err error) {
	o := parse()
	want, err := regexp.Compile("^(" + o.only + ")$")
	if err != nil {
		return err
	}
	soft, err := readStrengths(o.clauses)
	if err != nil {
		return err
	}
	before, err := readRecord(o.record)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/var/tmp", "mut") // a disk; and short, for sockets
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mutants.Tidy(dir)) }()
	driver := filepath.Join(dir, "driver")
	build := exec.CommandContext(ctx, "go", "build", "-tags", "grpcnotrace", "-o", driver, "./test/mutants/driver")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	t := &trial{driver: driver, dir: dir, thorough: o.thorough, soft: soft, before: before}
	list := slices.DeleteFunc(o.list(), func(m mutants.Mutant) bool { return o.only != "" && !want.MatchString(m.Name) })
	begun := time.Now()
	outcomes := all(ctx, t, list, o.workers)
	table(os.Stdout, outcomes, time.Since(begun))
	if o.survivors != "" {
		if err := writeSurvivors(o.survivors, outcomes); err != nil {
			return err
		}
	}
	if o.mutants && ctx.Err() == nil {
		if err := writeRecord(o.record, before, outcomes); err != nil {
			return err
		}
	}
	return verdict(outcomes)
}

// list is what is to be run, what takes longest first.
func (o *options) list() []mutants.Mutant {
	var list []mutants.Mutant
	if o.variants {
		list = append(list, mutants.Reference(mutants.Loop), mutants.Reference(mutants.Mem))
		list = append(list, mutants.Variants()...)
		long := func(m mutants.Mutant) int {
			return -slices.Index([]string{"variant-no-list", "variant-snapshots-wait", "variant-unavailable", "variant-slow"}, m.Name)
		}
		slices.SortStableFunc(list, func(a, b mutants.Mutant) int {
			return cmp.Or(cmp.Compare(b.Base, a.Base), cmp.Compare(long(a), long(b)))
		})
	}
	if o.mutants {
		all := mutants.All()
		slices.SortStableFunc(all, func(a, b mutants.Mutant) int { return cmp.Compare(b.Base, a.Base) })
		list = append(list, all...)
	}
	return list
}

// all tries a list, several at a time.
func all(ctx context.Context, t *trial, list []mutants.Mutant, workers int) []outcome {
	outcomes := make([]outcome, len(list))
	next := make(chan int)
	var wg sync.WaitGroup
	for range max(workers, 1) {
		wg.Go(func() {
			for i := range next {
				outcomes[i] = t.try(ctx, list[i])
				fmt.Fprintf(os.Stderr, "%-34s %s\n", list[i].Name, outcomes[i].summary())
			}
		})
	}
	for i := range list {
		next <- i
	}
	close(next)
	wg.Wait()
	return outcomes
}

// verdict is an error unless everything is as it should be.
func verdict(outcomes []outcome) error {
	wrong := 0
	for _, o := range outcomes {
		if !o.good() {
			wrong++
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d are not as they should be", wrong, len(outcomes))
	}
	return nil
}
