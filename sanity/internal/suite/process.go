package suite

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/sanity/internal/check"
)

// processChecks: H-09, H-10, H-21, H-22, H-23 and H-32: the driver as a process.
func processChecks() []Check {
	const cv, node = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME node"
	return []Check{
		{ID: "H-09/socket", Title: "The endpoint is a UNIX socket that ends in .sock, with nothing beside it", Clauses: "PR-01 PR-02 PR-03 PR-04 PR-10", Run: socket},
		{ID: "H-09/connections", Title: "Fifty short connections are served, as kubelet makes them", Clauses: "PR-12 PR-05", Run: connections},
		{ID: "H-10/busy", Title: "Probe answers soon while the driver is busy", Clauses: "ID-14 ID-17", Needs: cv, Run: probeBusy},
		{ID: "H-21/volumes", Title: "Many volumes are listed in answers that a client takes, and leave nothing open when they are deleted", Clauses: "LV-02 LV-04 PR-12", Needs: cv + " LIST_VOLUMES", Run: manyVolumes},
		{ID: "H-21/snapshots", Title: "Many snapshots are listed in answers that a client takes, and leave nothing open when they are deleted", Clauses: "LS-02 LS-05 PR-12", Needs: cv + " CREATE_DELETE_SNAPSHOT LIST_SNAPSHOTS", Run: manySnapshots},
		{ID: "H-22/messages", Title: "Errors and answers do not tell secrets, tokens or mount_flags", Clauses: "GEN-20 GEN-21 CV-43 CP-19 PR-07", Needs: cv, Run: secretMessages},
		{ID: "H-22/logs", Title: "The log does not tell secrets, tokens or mount_flags, plain or encoded", Clauses: "GEN-20 GEN-21 PR-07 PR-14", Needs: cv + " logs", Run: secretLogs},
		{ID: "H-22/files", Title: "No file beside a path, and none that the driver has open, tells secrets to others", Clauses: "GEN-20 PR-07", Needs: node + " host", Run: secretFiles},
		{ID: "H-22/command-lines", Title: "Command lines of what the driver starts do not tell secrets", Clauses: "GEN-20 PR-07", Needs: node + " pid", Run: secretCommands},
		{ID: "H-22/environment", Title: "The driver's own variables do not begin with CSI_", Clauses: "PR-11", Needs: "pid", Run: environment},
		{ID: "H-23/descriptors", Title: "Volumes that come and go leave no descriptor, no process, no thread and no memory", Clauses: "NU-02 NB-02 PR-12", Needs: node + " pid", Run: leaks},
		{ID: "H-23/devices", Title: "A volume that is gone has left no mount and no device", Clauses: "NU-02 NB-02", Needs: node + " host", Run: devices},
		{ID: "H-32/identity", Title: "The controller's and the node's endpoint say the same of the plugin", Clauses: "GEN-01 ID-06", Needs: "node controller", Run: twoIdentities},
		{ID: "H-32/other-side", Title: "RPCs of the other side are UNIMPLEMENTED", Clauses: "GEN-02 GEN-03 PR-15", Needs: "node controller", Run: otherSide},
	}
}

func socket(t *T) {
	for _, target := range slices.Compact([]string{t.Config().Controller, t.Config().Node}) {
		path := csiclient.SocketPath(target)
		switch {
		case path == "":
			t.Warnf("PR-02", "the endpoint %s is no UNIX socket: it has to be secured otherwise", csiclient.Endpoint(target))
			continue
		case !strings.HasSuffix(path, ".sock"):
			t.Warnf("PR-04", "the endpoint %s does not end in .sock", path)
		}
		names, err := os.ReadDir(filepath.Dir(path))
		if err != nil {
			continue // it is not here
		}
		for _, n := range names {
			if !strings.HasSuffix(n.Name(), ".sock") && filepath.Join(filepath.Dir(path), n.Name()) != path && strings.Contains(n.Name(), filepath.Base(path)) {
				t.Failf("PR-10", "%s is beside the socket", n.Name())
			}
		}
	}
}

func connections(t *T) {
	for range 50 {
		back, err := t.Redial()
		if err != nil {
			t.Fatalf("PR-12", "%v", err)
		}
		_, err = t.Try(&csi.GetPluginInfoRequest{})
		back()
		if err != nil {
			t.Fatalf("PR-12", "GetPluginInfo over a new connection: %s", check.Describe(err))
		}
	}
}

// children are the processes that a driver has started, and theirs.
func children(pid int) []int {
	var all []int
	tasks, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil {
		return nil
	}
	for _, file := range tasks {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // that thread is gone
		}
		for f := range strings.FieldsSeq(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				all = append(append(all, child), children(child)...)
			}
		}
	}
	return all
}
