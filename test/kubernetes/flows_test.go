package kubernetes

import (
	"fmt"
	"slices"
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
	{"volume that a container has a copy of", "kubelet", diskOnly, copied},
	{"encrypted volume, secrets", "provisioner, resizer, kubelet, each with the secrets that its role allows", cryptOnly, encrypted},
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
	{"sidecars killed", "provisioner, attacher, resizer, snapshotter", never, killSidecars},
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

// handle is what the driver calls a volume.
func (s *space) handle(pv string) string {
	s.Helper()
	return kubectl(s.T, "get", "pv", pv, "-o", "jsonpath={.spec.csi.volumeHandle}")
}

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
	if c := s.capacity(s.d.class(xfs)); c.bytes < 1<<30 || !strings.Contains(c.nodes, "topology."+s.d.driver.name+"/node") {
		s.Errorf("the provisioner says %+v", c)
	}
	s.claim("a", xfs, xfsSize)
	s.claim("huge", xfs, "900Ti")
	s.says("the claim waits", "PersistentVolumeClaim/a WaitForFirstConsumer: waiting for first consumer")
	s.has(0, "and no volume is made")
	s.pod("p", "a")
	s.pod("never", "huge")
	s.ready("p")
	s.unschedulable("never", "enough free storage")
	s.want(s.get(`{.metadata.annotations.volume\.kubernetes\.io/selected-node}`, "pvc", "huge"), "")
	topology := kubectl(s.T, "get", "pv", s.volume("a"), "-o", "jsonpath={.spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key}")
	s.want(topology, "topology."+s.d.driver.name+"/node")
}

// unschedulable waits until the scheduler has said why it has no node for a pod.
func (s *space) unschedulable(pod, why string) {
	s.Helper()
	eventually(s.T, "the scheduler refuses "+pod, func() error {
		if m := s.get(`{.status.conditions[?(@.type=="PodScheduled")].message}`, "pod", pod); !strings.Contains(m, why) {
			return fmt.Errorf("it says %q", m)
		}
		return nil
	})
}

// room is a CSIStorageCapacity.
type room struct {
	bytes float64
	nodes string // those that reach it, as JSON
}

// capacity waits until the provisioner has said how much space there is for a class.
func (s *space) capacity(class string) (r room) {
	s.Helper()
	eventually(s.T, "the provisioner says how much space there is", func() error {
		out, err := try("", "-n", "kube-system", "get", "csistoragecapacities", "-o",
			`jsonpath={range .items[?(@.storageClassName=="`+class+`")]}{.capacity} {.nodeTopology}{"\n"}{end}`)
		if err != nil {
			return err
		}
		if strings.Count(out, "\n") > 0 || out == "" {
			return fmt.Errorf("want one CSIStorageCapacity of %s: %q", class, out)
		}
		amount, nodes, _ := strings.Cut(out, " ")
		r.nodes = nodes
		r.bytes, err = quantity(amount)
		return err
	})
	return r
}

// quantity reads one of Kubernetes'.
func quantity(text string) (float64, error) {
	number, unit := strings.TrimRight(text, "KMGTPi"), 1.0
	if suffix := text[len(number):]; suffix != "" {
		unit = float64(uint64(1) << (10 * (1 + strings.Index("KMGTP", suffix[:1]))))
	}
	n, err := strconv.ParseFloat(number, 64)
	return n * unit, err
}

// static: a volume that somebody knows by its handle alone. What was written to it is
// there, and when its object is deleted the volume is.
func static(s *space) {
	s.claim("made", "retain", xfsSize)
	s.pod("p", "made")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
	s.remove("pod", "p")
	pv := s.volume("made")
	handle := s.handle(pv)
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
	s.pod("q", "a")
	s.ready("q")
	s.want(s.sh("q", "cat /data/f"), "one")
	s.remove("pod", "q")
	s.has(1, "the volume is what it was")
	// "Delete" is the provisioner's word, who did not make it: by its annotation.
	kubectl(s.T, "annotate", "pv", "static-volume", "pv.kubernetes.io/provisioned-by="+s.d.driver.name)
}

func attach(s *space) {
	s.claim("a", xfs, xfsSize)
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
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
	s.want(s.sh("q", "cat /data/f"), "one")
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
	s.want(s.sh("p0", "cat /data/p*"), strings.Join(pods, "\n"))
	s.want(s.sh("reader", "cat /data/p3; touch /data/x 2>/dev/null || echo refused"), "p3\nrefused")
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
	s.has(2, "each pod has a volume")
	s.remove("pod", "p")
	s.has(1, "the volume of the pod that went is gone")
	s.remove("pod", "q")
	s.has(0, "the volumes of the pods are gone")
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
	s.pod("p", "a")
	s.ready("p")
	handle := s.handle(s.volume("a"))
	asked := func() bool {
		calls, err := s.d.calls("ControllerModifyVolume", handle)
		if err != nil {
			s.Fatal(err)
		}
		return slices.ContainsFunc(calls, func(c logged) bool { return c.code == "OK" })
	}
	if asked() {
		s.Error("the volume was modified before anybody asked for it")
	}
	if s.d.modified(s.device("a")) == nil {
		s.Error("the volume is as if it were modified before anybody asked for it")
	}
	kubectl(s.T, "-n", s.ns, "patch", "pvc", "a", "--type=merge", "-p", `{"spec":{"volumeAttributesClassName":"second"}}`)
	s.is("second", "{.status.currentVolumeAttributesClassName}", "pvc", "a")
	if !asked() {
		s.Error("the driver was not asked")
	}
	if err := s.d.modified(s.device("a")); err != nil {
		s.Error(err)
	}
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
	s.unschedulable("q", "ReadWriteOncePod")
	s.remove("pod", "p")
	s.ready("q")
}
