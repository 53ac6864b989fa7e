package kubernetes

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var update = flag.Bool("update", false, "write what docs/kubernetes.md shows")

// chapter is a step of a volume's life: who does what, and the line of a log that
// shows it.
type chapter struct {
	what string
	from string // events, driver, kubelet or kube-controller-manager
	line string // a part of it
}

// The first half happens when a claim and a pod are made, the second when they are
// deleted.
var birth = []chapter{
	{"The PV controller (kube-controller-manager) sees a claim whose class says WaitForFirstConsumer, and waits.", "events", "WaitForFirstConsumer: waiting for first consumer"},
	{"The scheduler wants a node for the pod: of those that match it takes one whose CSIStorageCapacity is enough, and writes its name onto the claim. The pod gets it when the volume is there.", "events", "Pod/p Scheduled:"},
	{"csi-provisioner sees the claim with its node, and calls CreateVolume with the node's topology.", "driver", "method=CreateVolume"},
	{"csi-provisioner makes the PersistentVolume with the driver's volume ID, and the PV controller binds it to the claim.", "events", "ProvisioningSucceeded"},
	{"The attach-detach controller makes a VolumeAttachment, for CSIDriver says attachRequired; csi-attacher sees it and calls ControllerPublishVolume.", "driver", "method=ControllerPublishVolume"},
	{"csi-attacher writes \"attached\" into the VolumeAttachment, and the attach-detach controller the volume into the node's status.", "events", "SuccessfulAttachVolume"},
	{"kubelet sees that the volume is attached, makes the staging directory, and calls NodeStageVolume: the driver probes the device, makes a file system if it is blank, and mounts it there.", "driver", "method=NodeStageVolume"},
	{"kubelet notes it.", "kubelet", "MountVolume.MountDevice succeeded"},
	{"kubelet calls NodePublishVolume, once for each pod: the driver binds the mount to the pod's directory.", "driver", "method=NodePublishVolume"},
	{"kubelet gives the files to the pod's fsGroup, if it has one, and starts the containers over the mount.", "kubelet", "MountVolume.SetUp succeeded"},
}

var death = []chapter{
	{"The pod ends. kubelet calls NodeUnpublishVolume.", "driver", "method=NodeUnpublishVolume"},
	{"kubelet removes the pod's directory.", "kubelet", "UnmountVolume.TearDown succeeded"},
	{"No pod of the node uses the volume any more: kubelet calls NodeUnstageVolume.", "driver", "method=NodeUnstageVolume"},
	{"kubelet takes the volume out of what the node uses.", "kubelet", "UnmountDevice succeeded"},
	{"The attach-detach controller deletes the VolumeAttachment; csi-attacher calls ControllerUnpublishVolume, and only then lets it go.", "driver", "method=ControllerUnpublishVolume"},
	{"The attach-detach controller notes it.", "kube-controller-manager", "DetachVolume.Detach succeeded"},
	{"The claim is deleted, and its class says Delete: the PV controller releases the volume, csi-provisioner calls DeleteVolume and deletes the PersistentVolume.", "driver", "method=DeleteVolume"},
}

// story follows one claim, and holds docs/kubernetes.md to what the logs say.
func story(s *space) {
	begun := map[string]int{}
	for _, from := range []string{"driver", "kubelet", "kube-controller-manager"} {
		begun[from] = len(s.logOf(from))
	}
	s.claim("a", xfs, xfsSize)
	s.pod("p", "a")
	s.ready("p")
	pv := s.volume("a")
	handle := s.handle(pv)
	var b strings.Builder
	b.WriteString(s.tell(birth, begun, pv, handle))
	s.remove("pod", "p")
	s.remove("pvc", "a")
	gone(s.T, "pv", pv)
	b.WriteString(s.tell(death, begun, pv, handle))
	const path, begin, end = "../../docs/kubernetes.md", "<!-- what TestFlows saw -->\n", "<!-- end -->\n"
	doc, err := os.ReadFile(path)
	if err != nil {
		s.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(doc), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		s.Fatalf("%s has no place for it", path)
	}
	want := head + begin + b.String() + end + tail
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			s.Fatal(err)
		}
	} else if want != string(doc) {
		s.Errorf("%s is not what happened; -update writes it:\n%s", path, b.String())
	}
}

// tell finds each chapter's line.
func (s *space) tell(chapters []chapter, begun map[string]int, pv, handle string) string {
	s.Helper()
	var b strings.Builder
	for _, c := range chapters {
		var found string
		eventually(s.T, c.line, func() error {
			log := s.logOf(c.from)
			for line := range strings.Lines(log[min(begun[c.from], len(log)):]) {
				if strings.Contains(line, c.line) && (c.from == "events" || strings.Contains(line, handle) || strings.Contains(line, pv) || strings.Contains(line, "method=CreateVolume")) {
					found = line
					return nil
				}
			}
			return fmt.Errorf("no line of %s has %q", c.from, c.line)
		})
		fmt.Fprintf(&b, "%s\n\n    %s: %s\n\n", c.what, c.from, normal(found, pv, handle))
	}
	return b.String()
}

func (s *space) logOf(component string) string {
	switch component {
	case "events":
		return s.events()
	case "driver":
		return s.d.log(-1) + "\n"
	default:
		b, err := os.ReadFile(filepath.Join(state(), "log", component+".log"))
		if err != nil {
			s.Fatal(err)
		}
		return string(b)
	}
}

// Parts of a line that differ from run to run.
var different = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`^[IWE]\d{4} [\d:.]+\s+\d+ `), ""},
	{regexp.MustCompile(`^\d{4}/\d\d/\d\d [\d:]+ `), ""},
	{regexp.MustCompile(`request_id=\S+`), "request_id=7c41-5"},
	{regexp.MustCompile(`duration=\S+`), "duration=8ms"},
	{regexp.MustCompile(`[a-z0-9]{10}\.[a-z0-9]{26}`), "mypool.4tz5"},
	{regexp.MustCompile(`pvc-[0-9a-f-]{36}`), "pvc-1"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}`), "5e1f"},
	{regexp.MustCompile(`\^[0-9a-f.]+`), "^mypool.4tz5"},
	{regexp.MustCompile(`[0-9a-f]{64}`), "91ab"},
	{regexp.MustCompile(`f-[a-z0-9-]+/`), "default/"},
	{regexp.MustCompile(`[a-z_]+\.go:\d+\] `), ""},
}

func normal(line, pv, handle string) string {
	line = strings.TrimSpace(line)
	line = strings.ReplaceAll(strings.ReplaceAll(line, pv, "pvc-1"), handle, "mypool.4tz5")
	for _, d := range different {
		line = d.re.ReplaceAllString(line, d.with)
	}
	return line
}
