package csidriver

import (
	"fmt"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

// singleNodeWriters tells whether SINGLE_NODE_MULTI_WRITER is to be advertised:
// the two modes that replace SINGLE_NODE_WRITER.
func singleNodeWriters(t *backends.Traits) bool {
	return slices.Contains(t.Modes, backends.SingleNodeSingleWriter) ||
		slices.Contains(t.Modes, backends.SingleNodeMultiWriter)
}

// hasMode tells whether volumes can be used in this mode. SINGLE_NODE_WRITER is
// there for older COs wherever one of its successors is.
func hasMode(t *backends.Traits, m backends.AccessMode) bool {
	return slices.Contains(t.Modes, m) || m == backends.SingleNodeWriter && singleNodeWriters(t)
}

// checkCapability says why no volume of this driver has the capability.
func checkCapability(t *backends.Traits, in *csi.VolumeCapability) error {
	mode := in.GetAccessMode().GetMode()
	switch {
	case in.GetBlock() != nil && !t.Block:
		return noCapability("no raw block volumes")
	case in.GetMount() != nil && !t.Filesystem:
		return noCapability("no mounted volumes")
	case !hasMode(t, pbconv.Mode(mode)):
		return noCapability("access mode %v", mode)
	}
	return checkMount(t, in.GetMount())
}

func checkMount(t *backends.Traits, in *csi.VolumeCapability_MountVolume) error {
	total := 0
	for _, f := range in.GetMountFlags() {
		total += len(f)
	}
	switch fs := in.GetFsType(); {
	case total > maxFlags:
		return invalid("mount_flags are %d bytes long, %d are allowed", total, maxFlags)
	case t.Devices && fs != "" && !slices.Contains(t.FSTypes, fs):
		// Without Devices csikit makes no file system, and a default of the CO
		// ("ext4") says nothing.
		return noCapability("fs_type %q, which is not one of %s,", fs, strings.Join(t.FSTypes, ", "))
	case in.GetVolumeMountGroup() != "" && !t.MountGroup:
		return noCapability("volume_mount_group")
	}
	return nil
}

// checkCapabilities checks each of a list.
func checkCapabilities(t *backends.Traits, in []*csi.VolumeCapability) error {
	for i, c := range in {
		if err := checkCapability(t, c); err != nil {
			return fmt.Errorf("volume_capabilities[%d]: %w", i, err)
		}
	}
	return nil
}

func noCapability(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errNoCapability, fmt.Sprintf(format, args...))
}
