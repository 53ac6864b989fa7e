package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/csikit/csikit/cmd/csikit/internal/manifests"
	"github.com/csikit/csikit/internal/csiclient"
)

// manifestsCommand asks a driver and prints its objects of Kubernetes.
func manifestsCommand(ctx context.Context, args []string, out io.Writer) error {
	// The driver's own arguments come last.
	var ofDriver []string
	for i, a := range args {
		if a == "--" {
			args, ofDriver = args[:i], args[i+1:]
			break
		}
	}
	f := newEndpointFlags("manifests")
	o := manifests.Options{Args: ofDriver}
	f.set.StringVar(&o.Image, "image", "", "")
	f.set.StringVar(&o.Namespace, "namespace", "kube-system", "")
	f.set.StringVar(&o.Kubelet, "kubelet-dir", "", "")
	f.set.BoolVar(&o.Registrar, "registrar", false, "")
	f.set.BoolVar(&o.SingleNode, "single-node", false, "")
	f.set.BoolVar(&o.Plain, "plain", false, "")
	f.set.BoolVar(&o.Secrets, "controller-secrets", false, "")
	f.set.IntVar(&o.HealthPort, "health-port", 0, "")
	f.set.StringVar(&o.MetadataTLS, "snapshot-metadata-tls", "", "")
	f.set.Func("snapshot-metadata-ca", "", func(path string) (err error) { o.MetadataCA, err = os.ReadFile(path); return err })
	f.set.Func("host-path", "", func(s string) error { o.HostPaths = append(o.HostPaths, s); return nil })
	f.set.Func("fs", "", func(s string) error { o.FSTypes = strings.Split(s, ","); return nil })
	if err := f.parse(args); err != nil {
		return err
	}
	o.Parameters, o.Mutable = f.parameters, f.mutable
	// The manifests are on standard output, to be piped: talk goes elsewhere.
	// What it can do a driver says also without its storage, which is seldom where
	// manifests are made.
	controller, err := f.dialUntil(ctx, os.Stderr, f.endpoint, csiclient.WaitServing)
	if err != nil {
		return err
	}
	node := controller
	if f.node != "" {
		if node, err = f.dialUntil(ctx, os.Stderr, f.node, csiclient.WaitServing); err != nil {
			return err
		}
	}
	facts, err := manifests.Ask(ctx, controller, node)
	if err != nil {
		return err
	}
	if err := manifests.Write(out, facts, o); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return nil
}
