package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// export is the directory that the server in the VM has, and nfsServer its address,
// that of the node.
const (
	export    = "/srv/export"
	nfsServer = "10.88.0.1"
)

var nfs = &driver{
	name:  "nfs.csikit.dev",
	pkg:   "examples/nfs",
	asked: func(string) []string { return nfsArgs },
	there: nfsArgs,
	left: func() ([]string, error) {
		volumes, err := nfsDirectories("")
		snapshots, err2 := filepath.Glob(export + "/.csi-*/s/*.json")
		return append(volumes, snapshots...), errors.Join(err, err2)
	},
}

var nfsArgs = []string{"-share=main=" + nfsServer + ":/", "-init", "-legacy=use"}

// nfsQuota is the same driver on the server: its controller works in the directory that is
// exported, and sets quotas there. in-vm.sh writes the file.
var nfsQuota = &driver{
	name:  nfs.name,
	pkg:   nfs.pkg,
	asked: func(string) []string { return nfsQuotaArgs },
	there: nfsQuotaArgs,
	flags: []string{"-host-path", "/srv"},
	left:  nfs.left,
}

var nfsQuotaArgs = []string{"-shares=/srv/shares.json", "-init"}

// nfsQuotaFlows are those where a quota matters.
var nfsQuotaFlows = []string{
	"provision, Immediate", "expansion in use", "expansion of an unused volume", "snapshot, restore, clone", "statistics in kubelet's metrics",
}

// nfsDirectories are those of volumes on the server whose names begin so.
func nfsDirectories(prefix string) ([]string, error) {
	all, err := filepath.Glob(export + "/" + prefix + "*")
	var list []string
	for _, d := range all {
		if !strings.HasPrefix(filepath.Base(d), ".") {
			list = append(list, d)
		}
	}
	return list, err
}

// nfsNot are flows that are not for NFS.
var nfsNot = map[string]string{
	"static":                        "the handle is that of csi-driver-nfs, below",
	"raw block, expansion in use":   "a directory is no block device",
	"expansion in use":              "directories have no size without a quota: beside",
	"expansion of an unused volume": "directories have no size without a quota: beside",
	"encrypted volume, secrets":     "a directory is no block device",
	"group snapshot":                "only with a hook of the server's",
}

var nfsFlows = map[string]func(*space){
	"provision, WaitForFirstConsumer with capacity":   nfsWaits,
	"force-deleted pod; DeleteVolume while published": nfsForced,
}

// nfsWaits: without topology nobody tells the scheduler how much space there is, and it
// does not ask: external-provisioner would delete its CSIStorageCapacity as soon as it
// has made it, and pods would wait for "enough free storage" for minutes.
func nfsWaits(s *space) {
	apply(s.T, s.d.newClass("waits", "WaitForFirstConsumer", "Delete", nil))
	s.Cleanup(func() { _, _ = try("", "delete", "sc", "waits") })
	s.want(kubectl(s.T, "get", "csidriver", s.d.driver.name, "-o", "jsonpath={.spec.storageCapacity}"), "false")
	s.claim("a", "waits", "64Mi")
	s.says("the claim waits", "PersistentVolumeClaim/a WaitForFirstConsumer: waiting for first consumer")
	s.has(0, "and no volume is made")
	s.pod("p", "a")
	s.ready("p")
	if events := s.events(); strings.Contains(events, "FailedScheduling") {
		s.Errorf("the pod had to wait for a node:\n%s", events)
	}
	s.want(kubectl(s.T, "get", "csistoragecapacities", "-A", "-o", "name"), "")
	s.want(kubectl(s.T, "get", "pv", s.volume("a"), "-o", "jsonpath={.spec.nodeAffinity}"), "")
}

// nfsForced: who else has a directory mounted nobody knows; what was written is gone
// with the claim, and nothing hangs.
func nfsForced(s *space) {
	s.claim("a", "immediate", "64Mi")
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
	pv := s.volume("a")
	kubectl(s.T, "-n", s.ns, "delete", "pod", "p", "--force", "--grace-period=0")
	kubectl(s.T, "-n", s.ns, "delete", "pvc", "a", "--wait=false")
	gone(s.T, "pv", pv)
	s.remark = "; not refused: nobody knows who has a directory mounted"
	eventually(s.T, "kubelet has given the volume back", func() error { return unmounted(pv) })
}

// shared: several pods write one volume, and those of another claim only read.
func shared(s *space) {
	s.claim("a", s.d.base(), "64Mi", "accessModes: [ReadWriteMany]")
	s.pod("p", "a")
	s.pod("q", "a")
	s.ready("p", "q")
	s.sh("p", "echo one > /data/f && sync")
	s.want(s.sh("q", "cat /data/f; echo two > /data/g"), "one")
	eventually(s.T, "the first pod sees what the second one wrote", func() error {
		if got := s.sh("p", "cat /data/g"); got != "two" {
			return fmt.Errorf("it sees %q", got)
		}
		return nil
	})
	snapshot(s, "s", "a")
	s.claim("b", s.d.base(), "64Mi", "accessModes: [ReadOnlyMany]", "dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: s}")
	s.pod("r1", "b")
	s.pod("r2", "b")
	s.ready("r1", "r2")
	for _, p := range []string{"r1", "r2"} {
		s.want(s.sh(p, "cat /data/f; touch /data/x 2>/dev/null || echo refused"), "one\nrefused")
	}
}

// subDir: the volume lies on the server under names of the claim, and is kept as an
// archive.
func subDir(s *space) {
	apply(s.T, s.d.newClass("by-name", "Immediate", "Delete", map[string]string{
		"subDir": "${pvc.metadata.namespace}/${pvc.metadata.name}", "onDelete": "archive",
	}))
	s.Cleanup(func() { _, _ = try("", "delete", "sc", "by-name") })
	s.claim("a", "by-name", "64Mi")
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
	file := filepath.Join(export, s.ns, "a", "f")
	if b, err := os.ReadFile(file); err != nil || string(b) != "one\n" {
		s.Errorf("%s: %q, %v", file, b, err)
	}
	pv := s.volume("a")
	s.remove("pod", "p")
	s.remove("pvc", "a")
	gone(s.T, "pv", pv)
	kept, err := filepath.Glob(export + "/archived-" + s.ns + "-a-*/f")
	if err != nil || len(kept) != 1 {
		out, _ := exec.Command("find", export).CombinedOutput()
		s.Fatalf("archives: %v, %v\n%s", kept, err, out)
	}
	if err := os.RemoveAll(filepath.Dir(kept[0])); err != nil { // ours no more
		s.Error(err)
	}
}

// legacy: a PersistentVolume that csi-driver-nfs made.
func legacy(s *space) {
	dir := filepath.Join(export, "legacy")
	if err := errors.Join(os.MkdirAll(dir, 0o777), os.WriteFile(filepath.Join(dir, "f"), []byte("old\n"), 0o644)); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.apply(fmt.Sprintf(`apiVersion: v1
kind: PersistentVolume
metadata: {name: legacy-volume}
spec:
  accessModes: [ReadWriteMany]
  capacity: {storage: 64Mi}
  persistentVolumeReclaimPolicy: Retain
  storageClassName: by-hand
  claimRef: {namespace: %s, name: a}
  mountOptions: [vers=4.2]
  csi:
    driver: %s
    volumeHandle: %s##legacy##
    volumeAttributes: {server: %[3]s, share: /, subdir: legacy}
`, s.ns, s.d.driver.name, nfsServer))
	s.claim("a", "by-hand", "64Mi", "accessModes: [ReadWriteMany]")
	s.bound("a")
	s.pod("p", "a")
	s.ready("p")
	s.want(s.sh("p", "cat /data/f; echo new > /data/g"), "old")
	s.remove("pod", "p")
	s.remove("pvc", "a")
	kubectl(s.T, "delete", "pv", "legacy-volume", "--timeout=60s")
	if b, err := os.ReadFile(filepath.Join(dir, "g")); err != nil || string(b) != "new\n" {
		s.Errorf("%q, %v", b, err)
	}
}

// serverAway: kubelet gets rid of a pod whose server does not answer, and another one
// starts when it is back.
func serverAway(s *space) {
	s.claim("a", s.d.base(), "64Mi", "accessModes: [ReadWriteMany]")
	s.pod("p", "a")
	s.pod("q", "a")
	s.ready("p", "q")
	s.sh("p", "echo one > /data/f && sync")
	nfsd := func(what string) {
		if out, err := exec.Command("../vm/nfsd.sh", what).CombinedOutput(); err != nil {
			s.Fatalf("nfsd.sh %s: %v\n%s", what, err, out)
		}
	}
	nfsd("stop")
	if b, err := os.ReadFile("/proc/fs/nfsd/threads"); err != nil || strings.TrimSpace(string(b)) != "0" {
		s.Fatalf("the server has %q threads, %v", b, err)
	}
	stopped := true
	s.Cleanup(func() {
		if stopped {
			nfsd("start")
		}
	})
	began := time.Now()
	s.remove("pod", "p")
	went := time.Since(began)
	nfsd("start")
	began, stopped = time.Now(), false
	s.pod("p", "a")
	s.ready("p")
	runs := time.Since(began)
	s.want(s.sh("p", "cat /data/f"), "one")
	s.want(s.sh("q", "cat /data/f"), "one")
	// A server that starts opens no files until all of its clients have come back.
	s.Logf("the pod went in %.1f s; of the server's start the next one ran after %.1f s, and read after %.1f s", went.Seconds(), runs.Seconds(), time.Since(began).Seconds())
}
