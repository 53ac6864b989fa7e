// Command driver is the reference driver of package mutants, with one fault or none.
//
//	driver -mutant delete-again-not-found -endpoint unix:///run/x/csi.sock -state /var/tmp/x
//	driver -list
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/csikit/csikit/test/mutants"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "driver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	name := flag.String("mutant", "reference-mem", "which one, of -list; reference-mem and reference-loop have no fault")
	endpoint := flag.String("endpoint", os.Getenv("CSI_ENDPOINT"), "where to serve")
	state := flag.String("state", "", "directory for its state and its storage, on a disk; it exists")
	list := flag.Bool("list", false, "list the mutants and the valid variants")
	flag.Parse()
	if *list {
		return show(os.Stdout)
	}
	if *endpoint == "" || *state == "" {
		return errors.New("-endpoint and -state are needed")
	}
	m, err := mutants.ByName(*name)
	if err != nil {
		return err
	}
	d, err := mutants.Start(ctx, m, mutants.Options{Endpoint: *endpoint, Dir: *state, Out: os.Stderr})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return d.Stop()
	case err := <-d.Done():
		return fmt.Errorf("it ended by itself: %w", err)
	}
}

func show(out *os.File) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tCLASS\tBASE\tCLAUSES\tWHAT IT DOES")
	for _, m := range slices.Concat(mutants.All(), mutants.Variants()) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.Class, m.Base, strings.Join(m.Clauses, " "), m.Does)
	}
	return w.Flush()
}
