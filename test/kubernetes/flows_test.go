package kubernetes

import (
	"fmt"
	"strconv"
	"strings"
)

// Classes, as deployed.class calls them.
const (
	ext4 = "ext4"
	xfs  = "xfs"
	// xfsSize is about the least that mkfs.xfs takes.
	xfsSize = "320Mi"
)

var smoke = []flow{
	{"smoke", "provisioner, scheduler, kubelet, resizer, snapshotter, snapshot-controller", never, smokeFlow},
}

var flows = []flow{
	{"story of a claim", "PV controller, scheduler, provisioner, attach-detach controller, attacher, kubelet", attachOnly, story},
	{"provision, Immediate", "PV controller, provisioner, scheduler, kubelet", never, immediate},
	{"provision, WaitForFirstConsumer with capacity", "scheduler with CSIStorageCapacity, provisioner, kubelet", never, waitForConsumer},
	{"static", "PV controller, kubelet", never, static},
	{"attach and detach", "attach-detach controller, attacher, kubelet", attachOnly, attach},
	{"many pods, one volume", "scheduler, kubelet", never, manyPods},
	{"raw block, expansion in use", "provisioner, kubelet, resizer", never, block},
	{"expansion in use", "resizer, kubelet", never, expandOnline},
	{"expansion of an unused volume", "resizer, kubelet", never, expandOffline},
	{"snapshot, restore, clone", "snapshot-controller, snapshotter, provisioner, kubelet", never, snapshots},
	{"group snapshot", "snapshot-controller, snapshotter, provisioner", groupOnly, groups},
	{"snapshot metadata", "snapshot-controller, snapshotter, snapshot-metadata", metadataOnly, snapshotMetadata},
	{"inline ephemeral", "kubelet", never, ephemeral},
	{"VolumeAttributesClass", "resizer, provisioner", modifyOnly, modify},
	{"fsGroup", "kubelet", never, fsGroup},
	{"ReadWriteOncePod", "scheduler, kubelet", never, singlePod},
	{"republish with new tokens", "kubelet", never, republish},
	{"statistics in kubelet's metrics", "kubelet", never, statistics},
	{"force-deleted pod; DeleteVolume while published", "kubelet, provisioner", never, forceDeleted},
	{"driver restarted", "kubelet, all sidecars", never, restartDriver},
	{"kubelet restarted", "kubelet", never, restartKubelet},
	{"registration socket removed", "kubelet", builtInOnly, registrationRemoved},
	{"sidecars killed", "provisioner, snapshotter", never, killSidecars},
	{"100 volumes and pods at once", "all", hostOnly, hundred},
	{"ReadWriteMany, ReadOnlyMany", "provisioner, kubelet", sharedOnly, shared},
	{"subDir by the claim's name, archived", "provisioner", sharedOnly, subDir},
	{"a handle of csi-driver-nfs", "PV controller, kubelet", sharedOnly, legacy},
	{"pods that go while the server is away", "kubelet", sharedOnly, serverAway},
}

func groupOnly(d *deployed) string {
	if d.local {
		return "external-snapshotter of a node has no group snapshots"
	}
	return ""
}

func modifyOnly(d *deployed) string {
	if d.second == "" {
		return "nothing of the driver's can be modified"
	}
	return ""
}

func builtInOnly(d *deployed) string {
	if strings.Contains(strings.Join(d.flags, " "), "-registrar") {
		return "the registrar's socket is the registrar's"
	}
	return ""
}

func (s *space) bound(claims ...string) {
	s.Helper()
	for _, c := range claims {
		s.is("Bound", "{.status.phase}", "pvc", c)
	}
}

func (s *space) volume(claim string) string { return s.get("{.spec.volumeName}", "pvc", claim) }

func (s *space) want(got, want string) {
	s.Helper()
	if got != want {
		s.Errorf("got %q, want %q", got, want)
	}
}

// smokeFlow is one volume through its life.
func smokeFlow(s *space) {
	s.claim("a", xfs, xfsSize)
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
	grow(s, "a", "p", "512Mi", 400<<20)
	snapshot(s, "s", "a")
	s.claim("r", xfs, "512Mi", "dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: s}")
	s.pod("q", "r")
	s.ready("q")
	s.want(s.sh("q", "cat /data/f"), "one")
}

func immediate(s *space) {
	s.claim("a", "immediate", xfsSize)
	s.bound("a")
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
	s.remove("pod", "p")
	s.pod("q", "a")
	s.ready("q")
	s.want(s.sh("q", "cat /data/f"), "one")
}

// waitForConsumer: the claim waits for a pod; what no node has space for is not
// scheduled, and not tried.
func waitForConsumer(s *space) {
	eventually(s.T, "the provisioner says how much space there is", func() error {
		out, err := try("", "-n", "kube-system", "get", "csistoragecapacities", "-o",
			`jsonpath={range .items[?(@.storageClassName=="`+s.d.class(xfs)+`")]}{.capacity}{end}`)
		if err == nil && out == "" {
			err = fmt.Errorf("no CSIStorageCapacity of %s", s.d.class(xfs))
		}
		return err
	})
	s.claim("a", xfs, xfsSize)
	s.claim("huge", xfs, "900Ti")
	s.want(s.get("{.status.phase}", "pvc", "a"), "Pending")
	s.pod("p", "a")
	s.pod("never", "huge")
	s.ready("p")
	eventually(s.T, "the scheduler refuses", func() error {
		m := s.get(`{.status.conditions[?(@.type=="PodScheduled")].message}`, "pod", "never")
		if !strings.Contains(m, "enough free storage") {
			return fmt.Errorf("it says %q", m)
		}
		return nil
	})
	topology := kubectl(s.T, "get", "pv", s.volume("a"), "-o", "jsonpath={.spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key}")
	s.want(topology, "topology."+s.d.driver.name+"/node")
}

// static: a volume that somebody knows by its handle alone.
func static(s *space) {
	s.claim("made", "retain", xfsSize)
	s.bound("made")
	pv := s.volume("made")
	handle := kubectl(s.T, "get", "pv", pv, "-o", "jsonpath={.spec.csi.volumeHandle}")
	s.remove("pvc", "made")
	kubectl(s.T, "delete", "pv", pv, "--timeout=60s")
	s.apply(fmt.Sprintf(`apiVersion: v1
kind: PersistentVolume
metadata: {name: static-volume}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: %s}
  persistentVolumeReclaimPolicy: Delete
  storageClassName: by-hand
  claimRef: {namespace: %s, name: a}
  csi: {driver: %s, volumeHandle: %s, fsType: xfs}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: topology.%[3]s/node, operator: In, values: [csi-node]}]}]}}
`, xfsSize, s.ns, s.d.driver.name, handle))
	s.claim("a", "by-hand", xfsSize)
	s.bound("a")
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f")
	s.remove("pod", "p")
	// "Delete" is the provisioner's word, who did not make it: by its annotation.
	kubectl(s.T, "annotate", "pv", "static-volume", "pv.kubernetes.io/provisioned-by="+s.d.driver.name)
}

func attach(s *space) {
	s.claim("a", xfs, xfsSize)
	s.pod("p", "a")
	s.ready("p")
	pv := s.volume("a")
	attachment := func() string {
		return kubectl(s.T, "get", "volumeattachment", "-o", `jsonpath={range .items[?(@.spec.source.persistentVolumeName=="`+pv+`")]}{.metadata.name} {.status.attached}{end}`)
	}
	name, attached, _ := strings.Cut(attachment(), " ")
	s.want(attached, "true")
	s.remove("pod", "p")
	gone(s.T, "volumeattachment", name)
	s.want(attachment(), "")
	s.pod("q", "a")
	s.ready("q")
}

func manyPods(s *space) {
	s.claim("a", xfs, xfsSize)
	var pods []string
	for i := range 4 {
		pods = append(pods, "p"+strconv.Itoa(i))
		s.pod(pods[i], "a")
	}
	s.podOf("reader", "persistentVolumeClaim: {claimName: a, readOnly: true}", "volumeMounts: [{name: v, mountPath: /data}]")
	s.ready(append(pods, "reader")...)
	for _, p := range pods {
		s.sh(p, "echo "+p+" > /data/"+p)
	}
	s.want(s.sh("reader", "cat /data/p3; touch /data/x 2>/dev/null || echo refused"), "p3\nrefused")
}

func block(s *space) {
	s.claim("a", xfs, "64Mi", "volumeMode: Block")
	s.blockPod("p", "a")
	s.ready("p")
	s.sh("p", "echo one | dd of=/dev/xvda conv=fsync 2>/dev/null")
	s.patch("a", "128Mi")
	s.is("128Mi", "{.status.capacity.storage}", "pvc", "a")
	eventually(s.T, "the pod's device grows", func() error {
		if got := s.sh("p", "blockdev --getsize64 /dev/xvda"); got != strconv.Itoa(128<<20) {
			return fmt.Errorf("it has %s bytes", got)
		}
		return nil
	})
	s.remove("pod", "p")
	s.blockPod("q", "a")
	s.ready("q")
	s.want(s.sh("q", "head -c 3 /dev/xvda"), "one")
}

func (s *space) patch(claim, size string) {
	s.Helper()
	kubectl(s.T, "-n", s.ns, "patch", "pvc", claim, "--type=merge", "-p", `{"spec":{"resources":{"requests":{"storage":"`+size+`"}}}}`)
}

// grow grows a volume in use; the pod must see at least so many bytes.
func grow(s *space, claim, pod, size string, bytes int) {
	s.Helper()
	s.patch(claim, size)
	s.is(size, "{.status.capacity.storage}", "pvc", claim)
	s.sees(pod, bytes)
}

func (s *space) sees(pod string, bytes int) {
	s.Helper()
	got, err := strconv.Atoi(s.sh(pod, "df -k /data | awk 'END{print $(NF-4)}'"))
	if err != nil || got<<10 < bytes {
		s.Errorf("the pod sees %d KiB, %v", got, err)
	}
}

func expandOnline(s *space) {
	s.claim("a", xfs, xfsSize)
	s.pod("p", "a")
	s.ready("p")
	grow(s, "a", "p", "640Mi", 560<<20)
}

func expandOffline(s *space) {
	s.claim("a", ext4, "64Mi")
	s.pod("p", "a")
	s.ready("p")
	s.remove("pod", "p")
	s.patch("a", "128Mi")
	eventually(s.T, "the resizer has grown it", func() error {
		if got := kubectl(s.T, "get", "pv", s.volume("a"), "-o", "jsonpath={.spec.capacity.storage}"); got != "128Mi" {
			return fmt.Errorf("the volume has %s", got)
		}
		return nil
	})
	s.pod("q", "a")
	s.ready("q")
	s.is("128Mi", "{.status.capacity.storage}", "pvc", "a")
	s.sees("q", 100<<20)
}

func snapshot(s *space, name, claim string) {
	s.Helper()
	s.apply(fmt.Sprintf(`apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: %s}
spec: {volumeSnapshotClassName: %s, source: {persistentVolumeClaimName: %s}}
`, name, s.d.base(), claim))
	s.is("true", "{.status.readyToUse}", "volumesnapshot", name)
}

func snapshots(s *space) {
	s.claim("a", xfs, xfsSize)
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
	snapshot(s, "s", "a")
	s.sh("p", "echo two > /data/f && sync")
	s.claim("restored", xfs, "400Mi", "dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: s}")
	s.claim("clone", xfs, xfsSize, "dataSource: {kind: PersistentVolumeClaim, name: a}")
	s.pod("pr", "restored")
	s.pod("pc", "clone")
	s.ready("pr", "pc")
	s.want(s.sh("pr", "cat /data/f"), "one")
	s.want(s.sh("pc", "cat /data/f"), "two")
	s.sees("pr", 330<<20)
}

func groups(s *space) {
	for _, v := range []string{"a", "b"} {
		s.claim(v, xfs, xfsSize)
		kubectl(s.T, "-n", s.ns, "label", "pvc", v, "group=g")
		s.pod("p"+v, v)
	}
	s.ready("pa", "pb")
	s.sh("pa", "echo a > /data/f && sync")
	s.sh("pb", "echo b > /data/f && sync")
	s.apply(fmt.Sprintf(`apiVersion: groupsnapshot.storage.k8s.io/v1
kind: VolumeGroupSnapshot
metadata: {name: g}
spec: {volumeGroupSnapshotClassName: %s, source: {selector: {matchLabels: {group: g}}}}
`, s.d.base()))
	s.is("true", "{.status.readyToUse}", "volumegroupsnapshot", "g")
	members := strings.Fields(s.get("{.items[*].metadata.name}", "volumesnapshot"))
	if len(members) != 2 {
		s.Fatalf("members: %v", members)
	}
	s.claim("r", xfs, xfsSize, "dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: "+members[0]+"}")
	s.pod("pr", "r")
	s.ready("pr")
	of := s.get("{.spec.source.persistentVolumeClaimName}", "volumesnapshot", members[0])
	if got := s.sh("pr", "cat /data/f"); of != "" && got != of {
		s.Errorf("the snapshot of %s has %q", of, got)
	}
}

func ephemeral(s *space) {
	fs := ", fsType: ext4"
	if s.d.class(ext4) == s.d.base() {
		fs = "" // its volumes have no file system of their own
	}
	volume := "csi: {driver: " + s.d.driver.name + fs + ", volumeAttributes: {" + s.d.inline + "}}"
	for _, p := range []string{"p", "q"} {
		s.podOf(p, volume, "volumeMounts: [{name: v, mountPath: /data}]")
	}
	s.ready("p", "q")
	s.sh("p", "echo one > /data/f")
	s.want(s.sh("q", "ls /data | grep -v lost+found || echo none"), "none")
}

func modify(s *space) {
	s.apply(`apiVersion: storage.k8s.io/v1
kind: VolumeAttributesClass
metadata: {name: second}
driverName: ` + s.d.driver.name + `
parameters: {` + s.d.second + `}
`)
	s.Cleanup(func() { _, _ = try("", "delete", "volumeattributesclass", "second", "--wait=false") })
	s.claim("a", "immediate", xfsSize, "volumeAttributesClassName: "+s.d.base())
	s.bound("a")
	s.is(s.d.base(), "{.status.currentVolumeAttributesClassName}", "pvc", "a")
	kubectl(s.T, "-n", s.ns, "patch", "pvc", "a", "--type=merge", "-p", `{"spec":{"volumeAttributesClassName":"second"}}`)
	s.is("second", "{.status.currentVolumeAttributesClassName}", "pvc", "a")
}

func fsGroup(s *space) {
	s.claim("a", ext4, "64Mi")
	s.pod("p", "a", "securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}")
	s.ready("p")
	s.sh("p", "echo one > /data/f")
	s.want(s.sh("p", "stat -c %g /data /data/f"), "2000\n2000")
}

func singlePod(s *space) {
	s.claim("a", ext4, "64Mi", "accessModes: [ReadWriteOncePod]")
	s.pod("p", "a")
	s.ready("p")
	s.pod("q", "a")
	eventually(s.T, "the second pod is not scheduled", func() error {
		if m := s.get(`{.status.conditions[?(@.type=="PodScheduled")].message}`, "pod", "q"); !strings.Contains(m, "ReadWriteOncePod") {
			return fmt.Errorf("it says %q", m)
		}
		return nil
	})
	s.remove("pod", "p")
	s.ready("q")
}

// statistics: kubelet asks NodeGetVolumeStats and shows what it hears.
func statistics(s *space) {
	s.claim("a", ext4, "64Mi")
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "dd if=/dev/zero of=/data/f bs=1M count=8 2>/dev/null && sync")
	want := `kubelet_volume_stats_used_bytes{namespace="` + s.ns + `",persistentvolumeclaim="a"} `
	eventually(s.T, "kubelet's metrics", func() error {
		out, err := try("", "get", "--raw", "/api/v1/nodes/csi-node/proxy/metrics")
		if err != nil {
			return err
		}
		_, rest, ok := strings.Cut(out, want)
		if !ok {
			return fmt.Errorf("no %s", want)
		}
		used, err := strconv.ParseFloat(strings.SplitN(rest, "\n", 2)[0], 64)
		if err == nil && (used < 8<<20 || used > 64<<20 && s.d.driver != nfs) { // of NFS without a quota it is the whole share
			err = fmt.Errorf("%v bytes are used", used)
		}
		return err
	})
}
