// Lister asks the snapshot metadata service of a cluster as a backup program does:
// which blocks of a snapshot hold data, or differ from an earlier snapshot. It prints
// one range a line, offset and size.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/kubernetes-csi/external-snapshot-metadata/pkg/iterator"
	"k8s.io/client-go/tools/clientcmd"
)

type printer struct{}

func (printer) SnapshotMetadataIteratorRecord(_ int, m iterator.IteratorMetadata) error {
	for _, b := range m.BlockMetadata {
		fmt.Println(b.ByteOffset, b.SizeBytes)
	}
	return nil
}

func (printer) SnapshotMetadataIteratorDone(int) error { return nil }

func main() {
	args := iterator.Args{Emitter: printer{}}
	kubeconfig := flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "")
	flag.StringVar(&args.Namespace, "namespace", "", "of the snapshots")
	flag.StringVar(&args.SnapshotName, "snapshot", "", "")
	flag.StringVar(&args.PrevSnapshotName, "since", "", "an earlier snapshot")
	flag.StringVar(&args.SANamespace, "account-namespace", "", "")
	flag.StringVar(&args.SAName, "account", "", "whose token is shown")
	flag.Parse()
	if err := list(*kubeconfig, args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func list(kubeconfig string, args iterator.Args) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	if args.Clients, err = iterator.BuildClients(config); err != nil {
		return err
	}
	return iterator.GetSnapshotMetadata(context.Background(), args)
}
