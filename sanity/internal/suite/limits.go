package suite

import (
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/sanity/internal/check"
)

// mostAttached is to how many volumes at a node it is counted.
const mostAttached = 64

// limitChecks: what a driver says that it has room for.
func limitChecks() []Check {
	const attach = "CREATE_DELETE_VOLUME PUBLISH_UNPUBLISH_VOLUME node"
	return []Check{
		{ID: "H-01/attach-limit", Title: "ControllerPublishVolume of more volumes than max_volumes_per_node is RESOURCE_EXHAUSTED", Clauses: "CP-16 NI-04", Needs: attach, Run: attachLimit},
		{ID: "H-14/space", Title: "The space of a deleted volume is there again, in GetCapacity", Clauses: "DV-01 GC-01", Needs: "CREATE_DELETE_VOLUME GET_CAPACITY", Run: spaceComesBack},
	}
}

func attachLimit(t *T) {
	limit := t.Node.GetMaxVolumesPerNode()
	switch {
	case limit == 0:
		t.NotApplicable("the node has no max_volumes_per_node")
	case limit > mostAttached:
		t.NotRun("max_volumes_per_node is %d: this counts to %d", limit, mostAttached)
	}
	end := time.Now().Add(min(20*time.Second, t.Config().CallTimeout))
	first := t.NewVolume()
	first.Attach()
	for n := int64(2); n <= limit+1; n++ {
		if time.Now().After(end) {
			t.NotRun("max_volumes_per_node is %d, and %d volumes took too long", limit, n)
		}
		v := t.NewVolume()
		_, err := t.Try(v.AttachRequest())
		switch codeOf(err) {
		case codes.OK:
			continue
		case codes.ResourceExhausted:
		default:
			first.Detach()
			if _, again := t.Try(v.AttachRequest()); again != nil {
				t.NotRun("ControllerPublishVolume: %s, whatever else is published", check.Describe(again))
			}
			t.Failf("CP-16", "ControllerPublishVolume of volume no. %d of %d: got %s, until another was unpublished; want RESOURCE_EXHAUSTED", n, limit, check.Describe(err))
		}
		return
	}
	say := t.Warnf
	if t.Config().AttachLimit {
		say = t.Failf
	}
	say("CP-16 NI-04", "max_volumes_per_node is %d, and the controller has published %d volumes to the node", limit, limit+1)
}

// spaceComesBack: a driver may keep what is deleted for a while, and somebody else may
// make volumes meanwhile. Three times, after a while each, is worth a warning.
func spaceComesBack(t *T) {
	t.Mode()
	ask := func() int64 {
		return check.OK[*csi.GetCapacityResponse](t, "GC-01", &csi.GetCapacityRequest{
			VolumeCapabilities: t.CreateRequest().GetVolumeCapabilities(), Parameters: t.Config().Parameters,
		}).GetAvailableCapacity()
	}
	start := ask()
	before := start
	const rounds = 3
	for range rounds {
		v := t.NewVolume()
		lost := max(v.CapacityBytes, 1) / 2
		v.Delete()
		end := time.Now().Add(t.Config().CallTimeout / 4)
		now := ask()
		for ; now < before-lost && time.Now().Before(end); now = ask() {
			pause(t)
		}
		if now >= before-lost {
			return
		}
		before = now
	}
	t.Warnf("DV-01 GC-01", "GetCapacity said %d bytes, and after %d volumes that were made and deleted again %d: their space is not there again (if nobody else uses it)", start, rounds, before)
}
