// Command csikit is the tool for authors of CSI drivers.
//
//	csikit demo     one volume through its life on real disks, printed step by step
//	csikit walk     any driver that runs, by what it advertises: volumes, snapshots, clones
//	csikit check    a conformance test of a driver that runs
//	csikit manifests    what Kubernetes must have for a driver that runs
//
// It also runs beside a driver:
//
//	csikit fuse-host    the servers of FUSE volumes, where they outlive the driver
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

	"github.com/csikit/csikit/cmd/csikit/internal/walk"
	"github.com/csikit/csikit/sanity"
)

const usage = `csikit: the tool for authors of CSI drivers

  csikit demo [-dir DIR] [-fs xfs,ext4]
        starts the loop-file driver in a mount namespace and a temporary pool of
        its own and walks a volume through its life: create, stage, publish,
        write, expand, kill -9 and restart, read back, delete. Without root it
        uses a user namespace and directories instead of disks.

  csikit walk -endpoint unix:///csi.sock [-node-endpoint unix:///node.sock]
        [-fs xfs] [-access mount|block] [-parameters k=v,...] [-secrets FILE]
        [-mutable-parameters k=v,...] [-inline k=v,...] [-only life,snapshot,...]
        [-size BYTES] [-dir DIR] [-timeout 2m] [-no-data]
        walks volumes of a running driver through their lives as a CO does, by
        what the driver advertises, and takes everything back, also when a step
        fails: life (of one volume), mountgroup, modify, snapshot,
        clone, group, metadata, inline.
        Data is written and compared where the volume can be seen; for a mock
        that mounts nothing say -no-data. -mutable-parameters are for modify,
        -inline (perhaps "") gives the attributes of pods' inline volumes, which
        no driver advertises. DIR must be one that the driver sees under the same
        name. FILE holds a JSON object of secrets.

  csikit check -endpoint unix:///csi.sock [-node-endpoint unix:///node.sock]
        [-access mount|block] [-parameters k=v,...] [-mutable-parameters k=v,...]
        [-secrets FILE] [-size BYTES] [-dir DIR] [-timeout 15m] [-only H-05,...]
        [-restart CMD] [-log FILE] [-no-data] [-other-node ID] [-attach-limit]
        [-many N] [-seed N] [-fail-fast]
        [-json FILE] [-junit FILE] [-html FILE]
        runs csi-sanity, and then checks of its own (H-01 to H-32), against a
        running driver, and prints each: ok, FAIL (a clause of the spec is broken),
        WARN (allowed, and no good), skip (something is missing here), n/a (not
        advertised). CMD is run to kill the driver and to start it again; it is no
        shell's line, and returns while the driver runs. FILE of -log is what the
        driver logs, to be searched for secrets. Data is looked at where the volume
        can be seen; for a mock that mounts nothing say -no-data. csi-sanity wants
        volumes of exactly BYTES: say a size that the driver does not round.

  csikit check -clauses
        prints the clauses of the spec, and who holds a driver to each.

  csikit manifests -endpoint unix:///csi.sock [-node-endpoint unix:///node.sock]
        -image IMAGE [-namespace kube-system] [-registrar] [-single-node]
        [-host-path DIR]... [-fs ext4,xfs] [-parameters k=v,...]
        [-mutable-parameters k=v,...] [-controller-secrets]
        [-snapshot-metadata-tls SECRET -snapshot-metadata-ca FILE]
        [-kubelet-dir /var/lib/kubelet] [-health-port 9808] [-plain]
        [-- ARGUMENTS OF THE DRIVER]
        asks a running driver what it can do and prints what Kubernetes must have
        for it: CSIDriver, accounts and roles, DaemonSet and Deployment, classes.
        A driver whose volumes are local to nodes (backends.Kubernetes.NodeLocal)
        gets its sidecars on each node. -registrar takes node-driver-registrar and
        livenessprobe instead of what csidriver does itself. DIR is a directory of
        the host that the driver needs, as a pool. -controller-secrets lets sidecars
        read secrets. Drivers whose nodes are in the host's network need different
        health ports. SECRET holds the certificate with which external-snapshot-metadata
        serves backup programs, FILE (PEM) is the CA that they check it by. -plain is
        for a driver without the flags of csikit's examples.

  csikit fuse-host -socket /run/my-driver/fuse.sock [-grace 5s]
        runs the servers of a driver's FUSE volumes, in a container of its own
        beside the driver's: they outlive the driver's, and die with this one.

Without -endpoint it is what CSI_ENDPOINT says; -node-endpoint is for a driver
whose Node service answers elsewhere. BYTES are 1 GiB if not given; 0 asks for no
size (walk), or for the 1 GiB (check).

Exit code 0: all went well and nothing was left. 1: not so. 2: wrong usage, or
(check) nothing could be run.
`

func main() {
	if was, err := sanity.Child(); was {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(os.Stdout, usage)
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, walk.Printable(err.Error()))
		os.Exit(2)
	case errors.Is(err, errNotRun):
		os.Exit(2)
	default:
		if !errors.Is(err, errSaid) {
			fmt.Fprintln(os.Stderr, "csikit:", walk.Printable(err.Error()))
		}
		os.Exit(1)
	}
}

var (
	errUsage = errors.New("wrong usage (see csikit help)")
	errSaid  = errors.New("already told") // the message is on the screen
	// errNotRun: a check that could not begin; the message is on the screen.
	errNotRun = errors.New("could not run")
)

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		args = []string{"help"}
	}
	switch args[0] {
	case "demo":
		return demo(ctx, args[1:], out)
	case "walk":
		return walkCommand(ctx, args[1:], out)
	case "check":
		return check(ctx, args[1:], out)
	case "manifests":
		return manifestsCommand(ctx, args[1:], out)
	case "fuse-host":
		return fuseHost(ctx, args[1:])
	case driverCommand:
		return serveDriver(ctx, args[1:])
	case "help", "-h", "-help", "--help":
		fmt.Fprint(out, usage)
		return nil
	default:
		return fmt.Errorf("%w (unknown command %q)", errUsage, args[0])
	}
}
