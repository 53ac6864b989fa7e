package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// driver is an example.
type driver struct {
	name string // of its CSIDriver object
	pkg  string // its directory in the repository
	// asked are its arguments where csikit manifests asks it, below a directory;
	// there, those that it has in the cluster.
	asked func(dir string) []string
	there []string
	flags []string // of csikit manifests
	// left is what must not stay when all volumes are gone.
	left func() ([]string, error)
}

// base is the name in those of its objects.
func (d *driver) base() string  { return strings.ReplaceAll(d.name, ".", "-") }
func (d *driver) image() string { return "docker.io/csikit/" + d.base() + ":test" }

const pool = "/srv/volumes"

var loopfile = &driver{
	name:  "loopfile.csikit.dev",
	pkg:   "examples/loopfile",
	asked: func(dir string) []string { return []string{"-allow-root-fs", "-pool", filepath.Join(dir, "pool")} },
	there: []string{"-pool=" + pool},
	flags: []string{"-host-path", "/srv", "-fs", "ext4,xfs,btrfs"},
	left: func() ([]string, error) {
		// Volumes, snapshots, groups, and what is being deleted.
		return globs(pool+"/v/*/img", pool+"/s/*", pool+"/g/*", pool+"/.trash/*")
	},
}

func globs(patterns ...string) (all []string, err error) {
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// variant is a way to deploy a driver.
type variant struct {
	name       string
	kind       string // that of CSIKIT_E2E_DRIVER, which may go on with -SOMETHING; "": External.Storage does not run so
	driver     *driver
	flags      []string          // of csikit manifests, besides the driver's
	args       []string          // of the driver, besides its own
	parameters map[string]string // of classes
	second     string            // other mutable parameters than those of the flags; "": none can be modified
	inline     string            // volumeAttributes of inline volumes
	attach     bool
	metadata   bool // with external-snapshot-metadata, where it is built
	secrets    bool // classes may name secrets of the controller's calls
	// granularity is what changed blocks are exact to; nil: to no more than CSI asks.
	granularity func() (int64, error)
	// modified tells whether a device, or what is kept of its volume, is as the second
	// parameters say; nil: none.
	modified func(device string) error
	local    bool              // each node's sidecars serve its own volumes
	edit     *strings.Replacer // of the manifests; nil: none
	prepare  func() error      // what the node needs besides; nil: nothing
	flows    []flow
}

// variants are those that can be run here: on this machine, or in the VM.
func variants() []variant {
	if inVM() {
		return vmVariants()
	}
	return hostVariants()
}

func hostVariants() []variant {
	return []variant{
		{
			// attachRequired, the driver registers by itself, sidecars for all.
			name: "loopfile, attach", kind: "loopfile", driver: loopfile, attach: true, metadata: true,
			flags: []string{"-single-node", "-mutable-parameters", "read-bps=max"},
			args:  []string{"-attach", "-io-cgroup=/sys/fs/cgroup/pods", "-ephemeral-max=1073741824", "-thin", "-init-pool"},
			// Nothing limits I/O here (see podsCgroup); "max" is kept, and is no limit.
			second: `write-iops: "max"`, modified: kept, inline: "size: 64Mi",
			flows: flows,
		},
		{
			// Distributed provisioning, no attaching, node-driver-registrar and livenessprobe.
			name: "loopfile, distributed, registrar", driver: loopfile, local: true, secrets: true,
			flags:  []string{"-registrar"},
			args:   []string{"-thin", "-init-pool", "-ephemeral-max=1073741824"},
			inline: "size: 64Mi",
			flows:  flows,
		},
	}
}

func inVM() bool { return os.Getenv(inside) == "vm" }

// variantOf is the one that External.Storage runs against by this name: that whose
// kind is most of it.
func variantOf(name string) (variant, error) {
	var found variant
	for _, v := range variants() {
		if v.kind != "" && (name == v.kind || strings.HasPrefix(name, v.kind+"-")) && len(v.kind) > len(found.kind) {
			found = v
		}
	}
	if found.kind == "" {
		return found, fmt.Errorf("no driver %s is run here", name)
	}
	return found, nil
}
