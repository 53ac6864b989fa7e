package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/csikit/csikit/backends/lvm"
	"github.com/csikit/csikit/csidriver"
)

// settings is what the command line says.
type settings struct {
	lvm.Options
	endpoint, stateDir string
	sharedDirs         []string
	registry           string // kubelet's, to register in
	registered, health string
	serve              csidriver.Services // 0: both halves
}

func parse(args []string) (*settings, error) {
	s := &settings{Options: lvm.Options{Logger: slog.Default()}}
	fs := flag.NewFlagSet("lvm", flag.ExitOnError)
	fs.StringVar(&s.endpoint, "endpoint", "", "unix:///path (default $CSI_ENDPOINT)")
	fs.StringVar(&s.stateDir, "state-dir", "/var/lib/csi-lvm", "where the node keeps what is mounted; on the host's own disk")
	kubelet := fs.String("kubelet-dir", "", "kubelet's directory as this container sees it: its mounts must reach the host (default: not checked)")
	register := fs.Bool("register", false, "register with kubelet in -kubelet-dir, without a registrar")
	fs.StringVar(&s.registered, "kubelet-endpoint", "", "the driver's socket as kubelet sees it (default: as it is served)")
	fs.StringVar(&s.health, "health", "", "host:port for GET /healthz and /readyz (default: none)")
	mode := fs.String("mode", "all", "controller, node or all")
	fs.StringVar(&s.Driver, "driver", "lvm.csikit.dev", "name of the driver; logical volumes of another are left alone")
	fs.StringVar(&s.Node, "node-id", "", "name of this node (default: host name)")
	vg := fs.String("vg", "", "volume group: for a single class \"linear\", without -classes")
	classes := fs.String("classes", "", "JSON file with the classes, the default one first: [{\"Name\": \"ssd\", \"VG\": \"vg0\", \"Profile\": \"thin\", \"ThinPool\": \"pool0\"}]")
	fs.StringVar(&s.Cgroup, "cgroup", "", "cgroup v2 whose processes, and those below it, are kept within the I/O limits of volumes, for example /sys/fs/cgroup/kubepods.slice (default: volumes have none)")
	fs.Int64Var(&s.EphemeralMax, "ephemeral-max", 0, "bytes that an inline volume of a pod may have (default: pods may have none)")
	fs.Int64Var(&s.MaxVolumes, "max-volumes", 0, "volumes that the orchestrator may bring to this node (default: any number)")
	fs.Func("set", "section/name=value of lvm.conf, for example devices/use_devicesfile=0; may be repeated", func(v string) error {
		k, v, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("want section/name=value")
		}
		if s.Settings == nil {
			s.Settings = map[string]string{}
		}
		s.Settings[k] = v
		return nil
	})
	_ = fs.Parse(args) // ExitOnError
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected arguments %q", fs.Args())
	}
	if s.Node == "" {
		s.Node, _ = os.Hostname() // an empty name is refused by lvm.New
	}
	if *kubelet != "" {
		s.sharedDirs = []string{*kubelet}
	}
	switch {
	case *register && *kubelet == "":
		return nil, fmt.Errorf("-register needs -kubelet-dir")
	case *register && *mode != "controller":
		s.registry = filepath.Join(*kubelet, "plugins_registry")
	}
	switch *mode {
	case "all":
	case "controller":
		s.serve, s.Half = csidriver.ServeController, lvm.ControllerHalf
	case "node":
		s.serve, s.Half = csidriver.ServeNode, lvm.NodeHalf
	default:
		return nil, fmt.Errorf("-mode %q: want controller, node or all", *mode)
	}
	return s, s.readClasses(*vg, *classes)
}

// readClasses are those of a file, or one of a volume group.
func (s *settings) readClasses(vg, file string) error {
	switch {
	case (vg == "") == (file == ""):
		return fmt.Errorf("want one of -vg and -classes")
	case vg != "":
		s.Classes = []lvm.Class{{Name: "linear", VG: vg}}
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&s.Classes); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
