package suite

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

func mountGroup(t *T) {
	target := mountedWith(t, "NS-12", func(m *csi.VolumeCapability_MountVolume) { m.VolumeMountGroup = "4321" })
	file := filepath.Join(target, "csikit-group")
	if err := errors.Join(os.WriteFile(file, []byte("x"), 0o660), os.Chmod(file, 0o660)); err != nil { // whatever our umask is
		t.Fatalf("NS-13", "%v", err)
	}
	for _, path := range []string{target, file} {
		gid, mode, err := groupOf(path)
		if err != nil {
			t.NotRun("%v", err)
		}
		switch {
		case path == target && (gid != 4321 || mode&0o060 != 0o060):
			t.Failf("NS-12", "volume_mount_group is 4321, and the mounted directory is of group %d, %v", gid, mode)
		case gid != 4321: // the mode of a new file is up to who makes it
			t.Warnf("NS-13", "volume_mount_group is 4321, and %s, a new file, is of group %d", path, gid)
		}
	}
}

// otherGroup: with VOLUME_MOUNT_GROUP kubelet changes no file. The spec speaks of new
// ones alone, so that older ones of another group are a warning; Kubernetes' own suite
// for drivers fails with them.
func otherGroup(t *T) {
	v := volumeWith(t, func(m *csi.VolumeCapability_MountVolume) { m.VolumeMountGroup = "4321" })
	target := v.ToNode().PublishAt()
	if err := os.WriteFile(filepath.Join(target, "csikit-group"), []byte("x"), 0o660); err != nil {
		t.Fatalf("NS-13", "%v", err)
	}
	v.Cap.GetMount().VolumeMountGroup = "8765"
	target = nextPod(v, target)
	gid, _, err := groupOf(filepath.Join(target, "csikit-group"))
	switch {
	case err != nil:
		t.NotRun("%v", err)
	case gid != 8765:
		t.Warnf("NS-12", "volume_mount_group is 8765, and a file that was made when it was another one is of group %d: a pod whose fsGroup differs from that of the pod before it does not get at the volume's files, as it would if the driver left VOLUME_MOUNT_GROUP, and kubelet changed them", gid)
	}
	v.Unpublish(target)
	v.FromNode()
}
