package backendtest

import (
	"slices"

	"github.com/csikit/csikit/backends"
)

// validHealth looks at conditions.
func (t *T) validHealth(of string, conditions []backends.Health) {
	t.Helper()
	for i, h := range conditions {
		if h.Status < backends.HealthDegraded || h.Status > backends.HealthDataLoss || h.Reason == "" {
			t.Errorf("%s: condition %+v", of, h)
		}
		t.hides("the health of "+of, h.Reason+" "+h.Message)
		if slices.ContainsFunc(conditions[:i], func(o backends.Health) bool { return o.Status == h.Status && o.Reason == h.Reason }) {
			t.Errorf("%s: %v %q is there twice", of, h.Status, h.Reason)
		}
	}
}

var healthChecks = []check{
	{
		"health/volume", "Health is one adverse condition of a volume; a healthy one has none.", "Controller HealthChecker",
		func(t *T) {
			v := t.create(t.name())
			conditions, err := t.c.HealthChecker.VolumeHealth(t.Context(), backends.VolumeRequest{ID: v.ID, Secrets: t.cfg.secrets()})
			t.must("VolumeHealth", err)
			t.validHealth(v.ID, conditions)
			if len(conditions) > 0 {
				t.Errorf("a new volume is ill: %+v", conditions)
			}
			t.must("DeleteVolume", t.remove(t.Context(), v.ID))
			_, err = t.c.HealthChecker.VolumeHealth(t.Context(), backends.VolumeRequest{ID: v.ID})
			t.wantNotFound("VolumeHealth of a volume that is gone", err, backends.KindVolume, v.ID)
		},
	},
	{
		"health/list", "healthy volumes are left out", "Controller HealthLister",
		func(t *T) {
			t.create(t.name())
			list := func(page backends.Page) ([]string, string, error) {
				vols, next, err := t.c.HealthLister.ListVolumeHealth(t.Context(), backends.ListVolumeHealthRequest{Page: page, Secrets: t.cfg.secrets()})
				ids := make([]string, len(vols))
				for i, v := range vols {
					ids[i] = v.ID
					t.validHealth(v.ID, v.Health)
					if len(v.Health) == 0 {
						t.Errorf("ListVolumeHealth: %s has no condition", v.ID)
					}
				}
				return ids, next, t.watch("ListVolumeHealth", err)
			}
			t.everyLimit(list, nil)
			t.stale("ListVolumeHealth", list)
		},
	},
	{
		"health/volume on a node", "NodeHealthChecker serves GET_VOLUME_HEALTH on the node.", "Controller Node NodeHealthChecker",
		func(t *T) {
			v := t.usable(t.name())
			t.openVolume(v)
			conditions, err := t.n.NodeHealthChecker.NodeVolumeHealth(t.Context(), backends.NodeHealthRequest{ID: v.ID, State: t.open[v.ID].State, Secrets: t.cfg.secrets()})
			t.must("NodeVolumeHealth", err)
			t.validHealth(v.ID, conditions)
			_, err = t.n.NodeHealthChecker.NodeVolumeHealth(t.Context(), backends.NodeHealthRequest{ID: "volume-unknown-to-any-backend"})
			t.missing("NodeVolumeHealth", err, backends.KindVolume, "volume-unknown-to-any-backend")
		},
	},
	{
		"health/storage", "StorageHealth is one adverse condition of the storage behind volumes.", "Node StorageHealthChecker",
		func(t *T) {
			conditions, err := t.n.StorageHealthChecker.StorageHealth(t.Context(), backends.StorageHealthRequest{Secrets: t.cfg.secrets()})
			t.must("StorageHealth", err)
			for _, h := range conditions {
				t.hides("the health of the storage", h.Reason+" "+h.Message)
				if h.Status < backends.StorageDegraded || h.Status > backends.StorageUnreachable || h.Reason == "" {
					t.Errorf("condition %+v", h)
				}
			}
		},
	},
}
