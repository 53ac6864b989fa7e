package csidriver

import (
	"fmt"
	"math"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
)

// checkRange refuses a range that says nothing. Negative numbers are refused by
// the validator before.
func checkRange(in *csi.CapacityRange) error {
	if in != nil && in.GetRequiredBytes() == 0 && in.GetLimitBytes() == 0 {
		return invalid("capacity_range has neither required_bytes nor limit_bytes")
	}
	return nil
}

func outOfRange(format string, args ...any) error {
	return fmt.Errorf("%w: %s", backends.ErrOutOfRange, fmt.Sprintf(format, args...))
}

// resolveSize gives the size to make: the smallest that the range and the Traits
// allow, or the default when nothing was asked for. 0 means that volumes of this
// driver have no size.
func resolveSize(t *backends.Traits, r backends.CapacityRange) (int64, error) {
	if r.Limit > 0 && r.Required > r.Limit {
		return 0, outOfRange("required_bytes %d is more than limit_bytes %d", r.Required, r.Limit)
	}
	most := int64(math.MaxInt64)
	if r.Limit > 0 {
		most = r.Limit
	}
	if t.SizeMax > 0 {
		most = min(most, t.SizeMax)
	}
	want := r.Required
	if want == 0 {
		want = min(max(t.SizeDefault, t.SizeMin), roundDown(most, t.SizeStep))
	}
	size, ok := roundUp(max(want, t.SizeMin), t.SizeStep)
	if !ok || size > most {
		return 0, outOfRange("no size in [%d, %d] bytes: volumes have %s", r.Required, r.Limit, sizes(t))
	}
	return size, nil
}

func roundUp(n, step int64) (int64, bool) {
	if step <= 1 || n%step == 0 {
		return n, true
	}
	n -= n % step
	return n + step, n <= math.MaxInt64-step
}

func roundDown(n, step int64) int64 {
	if step <= 1 {
		return n
	}
	return n - n%step
}

// sizes says in a message what sizes there are.
func sizes(t *backends.Traits) string {
	s := fmt.Sprintf("at least %d", t.SizeMin)
	if t.SizeMax > 0 {
		s += fmt.Sprintf(" and at most %d", t.SizeMax)
	}
	if t.SizeStep > 1 {
		s += fmt.Sprintf(", in steps of %d", t.SizeStep)
	}
	return s + " bytes"
}

// inRange tells whether a capacity satisfies a range. One that is not known (0)
// does.
func inRange(capacity int64, r backends.CapacityRange) bool {
	return capacity == 0 || capacity >= r.Required && (r.Limit == 0 || capacity <= r.Limit)
}
