package suite

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// withGroup brings a volume to a new target as Kubernetes does: external-provisioner and
// external-attacher know no pod, and so no group.
func withGroup(v *check.Volume, group string) (target string, err error) {
	none := v.Cap
	v.Attach()
	v.Cap = proto.Clone(none).(*csi.VolumeCapability)
	defer func() { v.Cap = none }()
	v.Cap.GetMount().VolumeMountGroup = group
	return bringAttached(v)
}

func mountGroup(t *T) {
	target, err := withGroup(t.NewVolume(), "4321")
	if err != nil {
		t.Fatalf("NS-12", "VOLUME_MOUNT_GROUP is there, and a volume_mount_group is refused: %s", check.Describe(err))
	}
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
	target, err := withGroup(v, "4321")
	if err != nil {
		t.Fatalf("NS-12", "VOLUME_MOUNT_GROUP is there, and a volume_mount_group is refused: %s", check.Describe(err))
	}
	if err := os.WriteFile(filepath.Join(target, "csikit-group"), []byte("x"), 0o660); err != nil {
		t.Fatalf("NS-13", "%v", err)
	}
	v.Unpublish(target)
	v.FromNode()
	target, err = withGroup(v, "8765")
	if err != nil {
		t.Fatalf("NS-12", "the pod before had volume_mount_group 4321, and the next one with 8765 cannot have the volume: %s", check.Describe(err))
	}
	root, _, err := groupOf(target)
	file, _, err2 := groupOf(filepath.Join(target, "csikit-group"))
	switch err := errors.Join(err, err2); {
	case errors.Is(err, fs.ErrNotExist):
		t.Failf("NS-06 NU-02", "what the pod before wrote is gone: %v", err)
	case err != nil:
		t.NotRun("%v", err)
	case root != 8765:
		t.Failf("NS-12", "volume_mount_group is 8765, and the mounted directory is of group %d: the pod before had 4321", root)
	case file != 8765:
		t.Warnf("NS-12", "volume_mount_group is 8765, and a file that was made when it was another one is of group %d: a pod whose fsGroup differs from that of the pod before it does not get at the volume's files, as it would if the driver left VOLUME_MOUNT_GROUP, and kubelet changed them", file)
	}
	v.Unpublish(target)
	v.FromNode()
}
