package kubernetes

import (
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
)

// builtFor is where the VM finds what was built for it.
const builtFor = "CSIKIT_KUBERNETES_BUILT"

// enterVM runs this program again in the VM of test/vm, whose kernel has device-mapper
// and both halves of NFS.
func enterVM() int {
	dir, err := os.MkdirTemp("", "csikit-kubernetes")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, ending...)
	go func() {
		if _, ok := <-signals; ok { // while it builds; later on they are for the VM
			_ = os.RemoveAll(dir)
			os.Exit(1)
		}
	}()
	for _, pkg := range []string{"cmd/csikit", lvm.pkg, nfs.pkg, loopfile.pkg} {
		if err := build(filepath.Join(dir, filepath.Base(pkg)), pkg); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	signal.Stop(signals)
	close(signals)
	self, err := os.Executable()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	args := []string{"-m", "5120", "-t", "7200", "-d", "16G", "-d", "8G", "-d", "8G", "-d", "4G"}
	outputs := []string{os.Getenv("CSIKIT_E2E_OUT"), os.Getenv("CSIKIT_KUBERNETES_LOGS")}
	if table := os.Getenv(tableFile); table != "" {
		outputs = append(outputs, filepath.Dir(table))
	}
	for _, out := range outputs {
		if out != "" {
			args = append(args, "-w", out)
		}
	}
	cmd := outlived("../vm/run-in-vm.sh", slices.Concat(args, []string{"--", "./in-vm.sh", self}, os.Args[1:])...)
	cmd.Env = append(os.Environ(), inside+"=vm", builtFor+"="+dir, "CSIK8S_BIN="+binaries())
	return exitCode(follow(cmd))
}

// vmVariants: lvm with the registrar and each node for itself, lvm with sidecars for
// all, so that groups are there; nfs in two halves, as it is meant to be, and with its
// controller on the server.
func vmVariants() []variant {
	return []variant{
		{
			name: "lvm, linear, registrar", kind: "lvm-linear", driver: lvm, local: true, secrets: true, modified: readAhead,
			flags: []string{"-registrar", "-mutable-parameters", "read-ahead=1Mi"}, second: "read-ahead: 2Mi",
			args: []string{"-ephemeral-max=1073741824"}, inline: "size: 64Mi",
			flows: flows,
		},
		{
			name: "lvm, thin", kind: "lvm-thin", driver: lvm, parameters: map[string]string{"class": "thin"}, metadata: true, granularity: chunk, modified: readAhead,
			flags: []string{"-single-node", "-mutable-parameters", "read-ahead=1Mi"}, second: "read-ahead: 2Mi",
			args: []string{"-ephemeral-max=1073741824"}, inline: "size: 64Mi, class: thin",
			flows: flows,
		},
		{
			name: "nfs", kind: "nfs", driver: nfs, parameters: map[string]string{"share": "main"},
			args: []string{"-ephemeral"}, inline: "share: main",
			flows: adapt(flows, nfsFlows, nfsNot),
		},
		{
			name: "nfs, quota", kind: "nfs-quota", driver: nfsQuota, parameters: map[string]string{"share": "main"},
			args: []string{"-ephemeral", "-quota=project"}, inline: "share: main",
			flows: only(flows, "what nfs does", nfsQuotaFlows),
		},
		{
			name: "loopfile, io.max", driver: loopfile, local: true, prepare: poolInVM, modified: limited,
			flags: []string{"-mutable-parameters", "read-bps=max"}, second: "write-bps: 4Mi",
			args:  []string{"-io-cgroup=" + podsCgroup, "-thin", "-init-pool"},
			flows: only(flows, "what loopfile does", []string{"VolumeAttributesClass"}),
		},
	}
}

// adapt is a list of flows for a driver that walks some of them in its own way, and
// has reasons why others are not for it.
func adapt(flows []flow, own map[string]func(*space), not map[string]string) []flow {
	own, not = maps.Clone(own), maps.Clone(not)
	list := slices.Clone(flows)
	for i := range list {
		f := &list[i]
		if run, ok := own[f.name]; ok {
			f.run = run
		}
		if why, ok := not[f.name]; ok {
			f.not = func(*deployed) string { return why }
		}
		delete(own, f.name)
		delete(not, f.name)
	}
	if len(own)+len(not) > 0 {
		panic(fmt.Sprintf("no such flows: %v %v", slices.Collect(maps.Keys(own)), not))
	}
	return list
}

// only is a list of flows of which a driver walks some, and why not the others.
func only(flows []flow, why string, names []string) []flow {
	not := map[string]string{}
	for _, f := range flows {
		if !slices.Contains(names, f.name) {
			not[f.name] = why
		}
	}
	return adapt(flows, nil, not)
}

func hostOnly(*deployed) string {
	if inVM() {
		return "the VM has one CPU"
	}
	return ""
}

func sharedOnly(d *deployed) string {
	if d.driver != nfs {
		return "volumes are those of a node"
	}
	return ""
}
