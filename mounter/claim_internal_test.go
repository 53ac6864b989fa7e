package mounter

import "testing"

func TestSameDevice(t *testing.T) {
	for _, c := range []struct {
		a, b deviceRecord
		want bool
	}{
		{deviceRecord{Num: 1, DiskSeq: 2}, deviceRecord{Num: 1, DiskSeq: 2}, true},
		{deviceRecord{Num: 1, DiskSeq: 2}, deviceRecord{Num: 1, DiskSeq: 3}, false},
		{deviceRecord{Num: 1, DiskSeq: 2}, deviceRecord{Num: 2, DiskSeq: 2}, false},
		{deviceRecord{Num: 1}, deviceRecord{Num: 1}, true}, // a kernel that does not count
		{deviceRecord{Num: 1}, deviceRecord{Num: 1, DiskSeq: 3}, true},
		{deviceRecord{Num: 1}, deviceRecord{Num: 2}, false},
	} {
		if got := c.a.same(&c.b); got != c.want {
			t.Errorf("%+v, %+v: %v", c.a, c.b, got)
		}
	}
}
