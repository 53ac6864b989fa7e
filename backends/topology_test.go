package backends

import "testing"

func TestPermits(t *testing.T) {
	place := Segments{"zone": "a", "host": ""}
	for name, c := range map[string]struct {
		r    TopologyRequirement
		want bool
	}{
		"nothing":         {TopologyRequirement{}, true},
		"only preferred":  {TopologyRequirement{Preferred: []Segments{{"zone": "b"}}}, true},
		"anywhere":        {TopologyRequirement{Requisite: []Segments{{}}}, true},
		"here":            {TopologyRequirement{Requisite: []Segments{{"zone": "b"}, {"zone": "a"}}}, true},
		"all of it":       {TopologyRequirement{Requisite: []Segments{{"zone": "a", "host": ""}}}, true},
		"elsewhere":       {TopologyRequirement{Requisite: []Segments{{"zone": "b"}}}, false},
		"and elsewhere":   {TopologyRequirement{Requisite: []Segments{{"zone": "a", "host": "h"}}}, false},
		"an unknown key":  {TopologyRequirement{Requisite: []Segments{{"zone": "a", "rack": "1"}}}, false},
		"an absent empty": {TopologyRequirement{Requisite: []Segments{{"rack": ""}}}, false},
	} {
		if got := c.r.Permits(place); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
