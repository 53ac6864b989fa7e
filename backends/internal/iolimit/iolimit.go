// Package iolimit keeps processes within the I/O limits of a volume, by io.max of a
// cgroup v2, for the backends whose volumes are block devices of this machine: the
// parameters that users see, their values, and what the kernel is told.
//
// A limit is of one cgroup, which the operator names, and not of each pod's: a line
// of io.max holds for all below it, together.
package iolimit

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/csikit/csikit/backends"
)

// param is a mutable parameter, named as docker's --device-read-bps is, and what
// the kernel calls it in io.max.
type param struct {
	name, key string
	least     uint64
	most      uint64
	doc       string
}

// Below the least a mount of the volume would take minutes, for as long as which
// nobody could stop it: it is a number without its unit.
const (
	leastBPS  = 64 << 10
	leastIOPS = 10
	mostBPS   = 1 << 60
	mostIOPS  = 1<<32 - 2 // the kernel's next one is "max"
)

var params = [...]param{
	{"read-bps", "rbps", leastBPS, mostBPS, "bytes a second that may be read (" + rateRule + ")"},
	{"write-bps", "wbps", leastBPS, mostBPS, "bytes a second that may be written (" + rateRule + ")"},
	{"read-iops", "riops", leastIOPS, mostIOPS, "reads a second (max or 0: no limit)"},
	{"write-iops", "wiops", leastIOPS, mostIOPS, "writes a second (max or 0: no limit)"},
}

const rateRule = "10485760, 10Mi, 10M; max or 0: no limit"

// Limits of a volume: bytes read and written, reads and writes, each a second; 0:
// none.
type Limits [len(params)]uint64

// Is tells whether a parameter is a limit.
func Is(name string) bool { return index(name) >= 0 }

func index(name string) int {
	return slices.IndexFunc(params[:], func(p param) bool { return p.name == name })
}

// Parameters are the limits as csikit and users know them.
func Parameters() []backends.Parameter {
	var list []backends.Parameter
	for _, p := range params {
		list = append(list, backends.Parameter{Name: p.name, Doc: p.doc, Mutable: true})
	}
	return list
}

// Parse reads the mutable parameters of a volume that has no others.
func Parse(mutable map[string]string) (l Limits, err error) {
	for _, k := range slices.Sorted(maps.Keys(mutable)) {
		i := index(k)
		if i < 0 {
			return Limits{}, fmt.Errorf("%w: parameter %q is not one that can be modified", backends.ErrInvalid, k)
		}
		if l[i], err = params[i].parse(mutable[k]); err != nil {
			return Limits{}, err
		}
	}
	return l, nil
}

func (p *param) parse(s string) (uint64, error) {
	if s == "max" || s == "0" {
		return 0, nil
	}
	var n uint64
	var err error
	if p.least == leastBPS {
		n, err = Bytes(s)
	} else {
		n, err = strconv.ParseUint(s, 10, 64)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: parameter %s %q: want %s", backends.ErrInvalid, p.name, s, p.doc)
	}
	if n > p.most || n < p.least {
		return 0, fmt.Errorf("%w: parameter %s %q: want %d to %d, or max", backends.ErrInvalid, p.name, s, p.least, p.most)
	}
	return n, nil
}

// Bytes reads a quantity of Kubernetes: digits, and k, M, G, T, Ki, Mi, Gi or Ti.
func Bytes(s string) (uint64, error) {
	digits, unit := splitUnit(s)
	n, err := strconv.ParseUint(digits, 10, 64)
	switch {
	case err != nil:
		return 0, err
	case n > mostBPS/unit:
		return 0, strconv.ErrRange
	}
	return n * unit, nil
}

func splitUnit(s string) (digits string, unit uint64) {
	unit, binary := 1, uint64(1)
	for _, letter := range []string{"k", "M", "G", "T"} {
		unit, binary = unit*1000, binary<<10
		if d, ok := strings.CutSuffix(s, strings.ToUpper(letter)+"i"); ok {
			return d, binary
		}
		if d, ok := strings.CutSuffix(s, letter); ok {
			return d, unit
		}
	}
	return s, 1
}

// String is what is written to io.max behind the device: every limit, so that none
// stays of the volume that the device had before.
func (l Limits) String() string {
	var s []string
	for i, p := range params {
		v := "max"
		if l[i] != 0 {
			v = strconv.FormatUint(l[i], 10)
		}
		s = append(s, p.key+"="+v)
	}
	return strings.Join(s, " ")
}

// Throttle is what keeps processes within limits: a [Cgroup]; tests have another.
type Throttle interface {
	// Check says ErrPrecondition when nothing can be limited.
	Check() error
	// Get and Set the limits of a device, "7:0".
	Get(dev string) (Limits, error)
	Set(dev string, l Limits) error
}

// errOff says that the driver was not given a cgroup.
var errOff = errors.New("Options.Cgroup is not set")

// Apply makes l the limits of a device, whose number is asked for only when it is
// needed. t may be nil: then there can be none. Limits that nobody would keep
// anybody to are ErrPrecondition.
func Apply(t Throttle, l Limits, number func() (string, error)) error {
	if t == nil {
		if l != (Limits{}) {
			return fmt.Errorf("%w: %w", backends.ErrPrecondition, errOff)
		}
		return nil
	}
	if err := t.Check(); err != nil {
		if l == (Limits{}) {
			return nil // and so there are none
		}
		return err
	}
	dev, err := number()
	if err != nil {
		return fmt.Errorf("%w: number of the device: %w", backends.ErrUnavailable, err)
	}
	if have, err := t.Get(dev); err == nil && have == l {
		return nil
	}
	if err := t.Set(dev, l); err != nil {
		return fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	return nil
}

// Can refuses limits that nobody would keep anybody to, before they are written
// down: to lift limits needs nothing.
func Can(t Throttle, l Limits) error {
	switch {
	case l == (Limits{}):
		return nil
	case t == nil:
		return fmt.Errorf("%w: I/O limits: %w", backends.ErrInvalid, errOff)
	}
	return t.Check()
}

// Lift takes the limits from a device that is about to go: the next one with its
// number is somebody else's. restore gives them back if it stays. A failure is no
// reason to keep a volume open.
func Lift(t Throttle, log *slog.Logger, path string, number func() (string, error)) (restore func()) {
	restore = func() {}
	if t == nil || t.Check() != nil {
		return restore
	}
	var had Limits
	dev, err := number()
	if err == nil {
		had, err = t.Get(dev)
	}
	if err == nil && had != (Limits{}) {
		err = t.Set(dev, Limits{})
		restore = func() {
			if err := t.Set(dev, had); err != nil {
				log.Error("I/O limits of a volume that stays open are lost", "device", path, "err", err)
			}
		}
	}
	if err != nil {
		log.Error("I/O limits are not taken from a device", "device", path, "err", err)
	}
	return restore
}
