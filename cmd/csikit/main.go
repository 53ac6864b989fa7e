// Command csikit is the tool for authors of CSI drivers.
//
//	csikit demo    one volume through its life on real disks, printed step by step
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `csikit: the tool for authors of CSI drivers

  csikit demo [-dir DIR] [-fs xfs,ext4]
        starts the loop-file driver in a mount namespace and a temporary pool of
        its own and walks a volume through its life: create, stage, publish,
        write, expand, kill -9 and restart, read back, delete. Without root it
        uses a user namespace and directories instead of disks.

Exit code 0: all went well and nothing was left. 1: not so. 2: wrong usage.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	default:
		if !errors.Is(err, errSaid) {
			fmt.Fprintln(os.Stderr, "csikit:", err)
		}
		os.Exit(1)
	}
}

var (
	errUsage = errors.New("wrong usage: csikit help")
	errSaid  = errors.New("already told") // the message is on the screen
)

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		args = []string{"help"}
	}
	switch args[0] {
	case "demo":
		return demo(ctx, args[1:], out)
	case driverCommand:
		return serveDriver(ctx, args[1:])
	case "help", "-h", "-help", "--help":
		fmt.Fprint(out, usage)
		return nil
	default:
		return fmt.Errorf("%w (unknown command %q)", errUsage, args[0])
	}
}
