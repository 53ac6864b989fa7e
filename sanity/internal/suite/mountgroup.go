package suite

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
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

// otherGroup: kubelet asks for the fsGroup of the pod that is to come, whatever the one
// before had, and with VOLUME_MOUNT_GROUP it changes no file. The spec speaks of new ones
// alone, so that older ones of another group are a warning; Kubernetes' own suite for
// drivers fails with them.
func otherGroup(t *T) {
	v := t.NewVolume()
	v.Cap = proto.Clone(v.Cap).(*csi.VolumeCapability) // it was made for no group
	v.Cap.GetMount().VolumeMountGroup = "4321"
	target := v.ToNode().PublishAt()
	if err := os.WriteFile(filepath.Join(target, "csikit-group"), []byte("x"), 0o660); err != nil {
		t.Fatalf("NS-13", "%v", err)
	}
	v.Unpublish(target)
	v.FromNode()
	v.Cap.GetMount().VolumeMountGroup = "8765"
	target, err := bring(v)
	if err != nil {
		t.Fatalf("NS-12", "the pod before had volume_mount_group 4321, and the next one with 8765 cannot have the volume: %s", check.Describe(err))
	}
	root, _, err := groupOf(target)
	file, _, err2 := groupOf(filepath.Join(target, "csikit-group"))
	switch {
	case err != nil || err2 != nil:
		t.NotRun("%v", errors.Join(err, err2))
	case root != 8765:
		t.Failf("NS-12", "volume_mount_group is 8765, and the mounted directory is of group %d: the pod before had 4321", root)
	case file != 8765:
		t.Warnf("NS-12", "volume_mount_group is 8765, and a file that was made when it was another one is of group %d: a pod whose fsGroup differs from that of the pod before it does not get at the volume's files, as it would if the driver left VOLUME_MOUNT_GROUP, and kubelet changed them", file)
	}
	v.Unpublish(target)
	v.FromNode()
}
