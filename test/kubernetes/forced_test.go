package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// stopKubelet stops kubelet; pods and the driver go on. It runs again when start has
// been called, at the latest when the flow ends.
func stopKubelet(s *space) (start func()) {
	s.Helper()
	if out, err := script("kubelet.sh", "stop"); err != nil {
		s.Fatalf("%v\n%s", err, out)
	}
	start = sync.OnceFunc(func() {
		if out, err := script("kubelet.sh", "start"); err != nil {
			s.Fatalf("%v\n%s", err, out)
		}
		is(s.T, "True", `{.status.conditions[?(@.type=="Ready")].status}`, "node", "csi-node")
		s.d.waitReady(s.T)
	})
	s.Cleanup(start)
	return start
}

// forceDeleted: a pod with a grace period of 0 leaves the API at once, its claim may
// be deleted, and the volume with it, while its container writes to it. That is held
// open by a kubelet that does not run: the driver must refuse, and the data be there,
// until kubelet has unpublished.
func forceDeleted(s *space) {
	s.claim("a", "immediate", xfsSize)
	s.pod("p", "a")
	s.ready("p")
	s.sh("p", "echo one > /data/f && sync")
	pv, uid := s.volume("a"), s.get("{.metadata.uid}", "pod", "p")
	file := filepath.Join("/var/lib/kubelet/pods", uid, "volumes/kubernetes.io~csi", pv, "mount/f")
	start := stopKubelet(s)
	kubectl(s.T, "-n", s.ns, "delete", "pod", "p", "--force", "--grace-period=0")
	kubectl(s.T, "-n", s.ns, "delete", "pvc", "a", "--wait=false")
	call := "DeleteVolume"
	if s.d.attach {
		// The provisioner waits for the VolumeAttachment, and the controller leaves that
		// for 6 minutes. Somebody loses patience.
		refused(s, pv, "is still attached to node csi-node")
		impatient(s, pv)
		call = "ControllerUnpublishVolume"
	} else {
		refused(s, pv, "code = FailedPrecondition")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "one\n" {
		s.Errorf("the pod's file holds %q, %v", b, err)
	}
	if left, err := s.d.driver.left(); err != nil || len(left) == 0 {
		s.Errorf("what was the volume is gone: %v", err)
	}
	start()
	said := regexp.MustCompile(`method=` + call + ` .*code=FailedPrecondition`)
	eventually(s.T, "the driver's log says that it refused "+call, func() error {
		if log := s.d.log(-1); !said.MatchString(log) { // a kubelet that has just started has no logs
			return errors.New(s.d.log(20))
		}
		return nil
	})
	gone(s.T, "pv", pv)
	if err := unmounted(pv); err != nil {
		s.Error(err)
	}
}

// refused waits until external-provisioner has said why it does not delete a volume.
func refused(s *space, pv, why string) {
	s.Helper()
	eventually(s.T, "the deletion of "+pv+" is refused", func() error {
		out, err := try("", "get", "events", "-A", "--field-selector=involvedObject.name="+pv+",reason=VolumeFailedDelete", "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(out, why) {
			err = fmt.Errorf("the events say %q, and not %q", out, why)
		}
		return err
	})
	if phase := kubectl(s.T, "get", "pv", pv, "-o", "jsonpath={.status.phase}"); phase == "Bound" {
		s.Errorf("the volume is %s", phase)
	}
}

// impatient deletes the VolumeAttachment of a volume that is mounted; the driver
// refuses that too.
func impatient(s *space, pv string) {
	s.Helper()
	name := kubectl(s.T, "get", "volumeattachment", "-o", `jsonpath={.items[?(@.spec.source.persistentVolumeName=="`+pv+`")].metadata.name}`)
	kubectl(s.T, "delete", "volumeattachment", name, "--wait=false")
	eventually(s.T, "the driver refuses to detach", func() error {
		out, err := try("", "get", "volumeattachment", name, "-o", "jsonpath={.status.detachError.message}")
		if err == nil && !strings.Contains(out, "code = FailedPrecondition") {
			err = fmt.Errorf("the VolumeAttachment says %q", out)
		}
		return err
	})
}
