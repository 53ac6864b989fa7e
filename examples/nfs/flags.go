package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends/nfs"
	"github.com/csikit/csikit/csidriver"
)

// settings is what the command line says.
type settings struct {
	nfs.Options
	driver, node       string
	endpoint, stateDir string
	sharedDirs         []string
	registry           string // kubelet's, to register in
	registered, health string
	serve              csidriver.Services // 0: both halves
}

func parse(args []string) (*settings, error) {
	s := &settings{Options: nfs.Options{Logger: slog.Default()}}
	fs := flag.NewFlagSet("nfs", flag.ContinueOnError)
	fs.StringVar(&s.endpoint, "endpoint", "", "unix:///path (default $CSI_ENDPOINT)")
	fs.StringVar(&s.stateDir, "state-dir", "/var/lib/csi-nfs", "where the node keeps what is mounted, and each process which share is which; on the host's own disk")
	kubelet := fs.String("kubelet-dir", "", "kubelet's directory as this container sees it: its mounts must reach the host (default: not checked)")
	register := fs.Bool("register", false, "register with kubelet in -kubelet-dir, without a registrar")
	fs.StringVar(&s.registered, "kubelet-endpoint", "", "the driver's socket as kubelet sees it (default: as it is served)")
	fs.StringVar(&s.health, "health", "", "host:port for GET /healthz and /readyz (default: none)")
	mode := fs.String("mode", "all", "controller, node or all")
	fs.StringVar(&s.driver, "driver", "nfs.csikit.dev", "name of the driver")
	fs.StringVar(&s.node, "node-id", "", "name of this node (default: host name)")
	fs.Func("share", "NAME=SERVER:/EXPORT[,OPTION...], or NAME=/DIRECTORY of this host; may be repeated, the default one first", s.addShare)
	ids := map[string]string{}
	fs.Func("share-id", "NAME=ID: the id in the share.json of a share, so that no other one is taken for it; may be repeated", func(v string) error {
		name, id, ok := strings.Cut(v, "=")
		if !ok || id == "" || ids[name] != "" {
			return fmt.Errorf("want NAME=ID, once for each share")
		}
		ids[name] = id
		return nil
	})
	file := fs.String("shares", "", `JSON file with more: [{"Name": "main", "Server": "nfs1", "Export": "/srv", "Options": ["nconnect=4"]}]`)
	fs.BoolVar(&s.AnyShare, "any-share", false, "let a class name any server and path, as csi-driver-nfs does")
	fs.BoolVar(&s.Init, "init", false, "prepare shares that were never used (controller); otherwise they are disks that their server has not mounted")
	fs.StringVar(&s.Installation, "installation", "", "tells apart drivers that share an export (default csikit)")
	fs.StringVar(&s.OnDelete, "on-delete", "", "what becomes of deleted volumes, if their class does not say: delete (default), retain or archive")
	legacy := fs.String("legacy", "refuse", "volumes of csi-driver-nfs: refuse, use (but not delete) or delete, as their handle says")
	quota := fs.String("quota", "", `"" (none), guard, project or hook`)
	hook := fs.String("hook", "", "program for snapshots and quotas of the server's own, with its first arguments")
	fs.BoolVar(&s.HookSnapshots, "hook-snapshots", false, "the hook makes snapshots; otherwise they are copies")
	fs.BoolVar(&s.Ephemeral, "ephemeral", false, "permit inline volumes of pods")
	fs.BoolVar(&s.MountGroup, "mount-group", false, "give a volume's root to a pod's fsGroup, once, instead of having kubelet change all files")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected arguments %q", fs.Args())
	}
	if s.node == "" {
		s.node, _ = os.Hostname() // an empty name is refused by csidriver.New
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
	s.Quota, s.Hook = nfs.Quota(*quota), strings.Fields(*hook)
	switch *legacy {
	case "refuse":
	case "use":
		s.Legacy = nfs.LegacyUse
	case "delete":
		s.Legacy = nfs.LegacyDelete
	default:
		return nil, fmt.Errorf("-legacy %q: want refuse, use or delete", *legacy)
	}
	switch *mode {
	case "all":
	case "controller":
		s.serve, s.Half = csidriver.ServeController, nfs.ControllerHalf
	case "node":
		s.serve, s.Half = csidriver.ServeNode, nfs.NodeHalf
	default:
		return nil, fmt.Errorf("-mode %q: want controller, node or all", *mode)
	}
	s.StateDir = filepath.Join(s.stateDir, "shares")
	if err := s.readShares(*file); err != nil {
		return nil, err
	}
	return s, s.setIDs(ids)
}

// setIDs gives shares the IDs of -share-id.
func (s *settings) setIDs(ids map[string]string) error {
	for name, id := range ids {
		i := slices.IndexFunc(s.Shares, func(h nfs.Share) bool { return h.Name == name })
		if i < 0 {
			return fmt.Errorf("-share-id %s=%s: there is no share %q", name, id, name)
		}
		s.Shares[i].ID = id
	}
	return nil
}

// addShare reads a -share.
func (s *settings) addShare(v string) error {
	name, where, ok := strings.Cut(v, "=")
	if !ok {
		return fmt.Errorf("want NAME=SERVER:/EXPORT")
	}
	if strings.HasPrefix(where, "/") {
		s.Shares = append(s.Shares, nfs.Share{Name: name, LocalDir: where})
		return nil
	}
	server, export, ok := strings.Cut(where, ":/")
	if !ok {
		return fmt.Errorf("want NAME=SERVER:/EXPORT")
	}
	export, options, _ := strings.Cut("/"+export, ",")
	share := nfs.Share{Name: name, Server: server, Export: export}
	if options != "" {
		share.Options = strings.Split(options, ",")
	}
	s.Shares = append(s.Shares, share)
	return nil
}

// readShares adds those of a file.
func (s *settings) readShares(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	var more []nfs.Share
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&more); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	s.Shares = append(s.Shares, more...)
	return nil
}
