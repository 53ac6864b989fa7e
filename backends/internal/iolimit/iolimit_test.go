package iolimit

import (
	"errors"
	"testing"

	"github.com/csikit/csikit/backends"
)

func TestParseLimits(t *testing.T) {
	for s, want := range map[string]uint64{
		"max": 0, "0": 0, "65536": 65536, "64Ki": 65536, "1Mi": 1 << 20, "2Gi": 2 << 30, "1Ti": 1 << 40,
		"100k": 100e3, "5M": 5e6, "2G": 2e9, "1T": 1e12, "01000000": 1e6,
	} {
		got, err := Parse(map[string]string{"write-bps": s})
		if err != nil || got != (Limits{0, want, 0, 0}) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	if got, err := Parse(map[string]string{"read-iops": "100", "write-iops": "4294967294", "read-bps": "1M"}); err != nil || got != (Limits{1e6, 0, 100, mostIOPS}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []map[string]string{
		{"read-bps": ""}, {"read-bps": "1"}, {"read-bps": "65535"}, {"read-bps": "-1"}, {"read-bps": "+1000000"}, {"read-bps": "1e6"}, {"read-bps": "1 Mi"},
		{"read-bps": "1MB"}, {"read-bps": "Mi"}, {"read-bps": "99999999999Ti"}, {"read-bps": "18446744073709551616"}, {"read-bps": "00"}, {"read-bps": "MAX"},
		{"read-iops": "9"}, {"read-iops": "1k"}, {"read-iops": "4294967295"}, {"iops": "100"}, {"type": "thin"}, {"": ""},
		{"read-bps": "1Mi", "write-iops": "x"},
	} {
		if got, err := Parse(bad); !errors.Is(err, backends.ErrInvalid) || got != (Limits{}) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

func TestLimitLines(t *testing.T) {
	l := Limits{1 << 20, 0, 100, 0}
	if got := l.String(); got != "rbps=1048576 wbps=max riops=100 wiops=max" {
		t.Error(got)
	}
	for _, l := range []Limits{{}, l, {1, 2, 3, 4}} {
		if got, err := parseLimits(l.String() + "\n"); err != nil || got != l {
			t.Errorf("%v: %v, %v", l, got, err)
		}
	}
	if _, err := parseLimits("rbps=x"); err == nil {
		t.Error("no number")
	}
}
