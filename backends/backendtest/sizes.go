package backendtest

import (
	"errors"
	"fmt"
	"math"

	"github.com/csikit/csikit/backends"
)

func isUnavailable(err error) bool { return errors.Is(err, backends.ErrUnavailable) }

// refusals of a size.
var tooMuch = []error{backends.ErrNoSpace, backends.ErrOutOfRange, backends.ErrInvalid}

var sizeChecks = []check{
	{
		"sizes/at the limits", "bytes to make: within Range, rounded by Traits", "Controller",
		func(t *T) {
			for _, size := range t.sizes() {
				req := t.request(t.name())
				req.Size, req.Range = size, backends.CapacityRange{Required: size, Limit: size}
				v, err := t.provision(t.Context(), req, origin{})
				if err != nil {
					t.wantKind("CreateVolume", err, tooMuch...)
					t.Logf("%d bytes: %v", size, err)
					t.gone(req, "")
					continue
				}
				t.fits(v, req, origin{})
				t.must("DeleteVolume", t.remove(t.Context(), v.ID))
			}
		},
	},
	{
		"sizes/too much", "ErrNoSpace and ErrOutOfRange promise that nothing is left behind.", "Controller",
		func(t *T) {
			if t.cfg.size(&t.b.Traits) == 0 {
				t.Skip("volumes have no sizes")
			}
			largest := int64(math.MaxInt64)
			if step := t.b.Traits.SizeStep; step > 1 {
				largest = largest / step * step
			}
			for _, size := range []int64{largest, largest / 2 / max(t.b.Traits.SizeStep, 1) * max(t.b.Traits.SizeStep, 1)} {
				req := t.request(t.name())
				req.Size, req.Range = size, backends.CapacityRange{Required: size}
				_, err := t.provision(t.Context(), req, origin{})
				t.wantKind("CreateVolume of all bytes there are", err, tooMuch...)
				t.gone(req, "")
				if t.c.VolumeLister != nil && len(t.list()) > 0 {
					t.Errorf("left behind: %q", t.list())
				}
			}
		},
	},
	{
		"sizes/capacity", "Capacity in bytes. MaxVolume and MinVolume bound one volume; 0: not known.", "Controller CapacityReporter",
		func(t *T) {
			empty := t.capacity()
			if empty.MaxVolume > 0 && empty.MinVolume > empty.MaxVolume {
				t.Errorf("volumes have %d to %d bytes", empty.MinVolume, empty.MaxVolume)
			}
			// Others may free what they had of the same storage: once is enough.
			grew := ""
			for range 8 {
				before, v := t.capacity().Available, t.create(t.name())
				after := t.capacity().Available
				if after <= before || v.Capacity == 0 {
					return
				}
				grew = fmt.Sprintf("with one volume more %d bytes are available, and %d were", after, before)
			}
			t.Error(grew)
		},
	},
	{
		"sizes/of the bounds", "MaxVolume and MinVolume bound one volume", "Controller CapacityReporter",
		func(t *T) {
			have := t.capacity()
			if have.MinVolume > 0 && have.MinVolume <= have.Available {
				req := t.request(t.name())
				req.Size = roundUp(max(have.MinVolume, t.b.Traits.SizeMin), t.b.Traits.SizeStep)
				req.Range.Required = req.Size
				v, err := t.provision(t.Context(), req, origin{})
				t.must("CreateVolume of MinVolume", err)
				t.fits(v, req, origin{})
			}
			if have.MaxVolume > 0 && have.MaxVolume < math.MaxInt64/2 {
				req := t.request(t.name())
				// By far more: others may free what they had of the same storage.
				req.Size = roundUp(2*have.MaxVolume, t.b.Traits.SizeStep)
				req.Range.Required = req.Size
				_, err := t.provision(t.Context(), req, origin{})
				t.wantKind("CreateVolume of more than MaxVolume", err, tooMuch...)
				t.gone(req, "")
			}
		},
	},
}

// sizes that Traits allows, at its limits.
func (t *T) sizes() []int64 {
	tr := &t.b.Traits
	if t.cfg.size(tr) == 0 {
		return []int64{0}
	}
	step := max(tr.SizeStep, 1)
	least := max(roundUp(tr.SizeMin, step), step)
	sizes := []int64{least, least + step, least + 7*step, t.cfg.size(tr)}
	if tr.SizeMax > 0 {
		sizes = append(sizes, tr.SizeMax/step*step)
	}
	return sizes
}

// capacity asks for the whole.
func (t *T) capacity() backends.Capacity {
	t.Helper()
	have, err := t.c.CapacityReporter.Capacity(t.Context(), backends.CapacityRequest{Parameters: t.cfg.parameters(&t.b.Traits)})
	t.must("Capacity", err)
	if have.Available < 0 || have.MaxVolume < 0 || have.MinVolume < 0 {
		t.Errorf("capacity %+v", have)
	}
	return have
}
