package idempotency

import (
	"fmt"
	"testing"
)

func TestKeys(t *testing.T) {
	for _, tt := range []struct {
		a, b  []string
		clash bool
	}{
		{[]string{"x"}, []string{"x"}, true},
		{[]string{"x"}, []string{"y"}, false},
		{[]string{"~x"}, []string{"~x"}, false},
		{[]string{"~x"}, []string{"x"}, true},
		{[]string{"x"}, []string{"~x"}, true},
		{[]string{"~x", "a"}, []string{"b", "~x"}, false},
		{[]string{"~x", "a"}, []string{"a", "~x"}, true},
		{[]string{"~x", "x"}, []string{"~x"}, true}, // exclusive wins
		{[]string{"x", "~x"}, []string{"~x"}, true},
		{[]string{"~x", "~x"}, []string{"~x"}, false},
		{[]string{"a", "b", "c", "d", "e"}, []string{"e"}, true},
		{nil, nil, false},
	} {
		t.Run(fmt.Sprint(tt.a, tt.b), func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, r *rig) {
				a, b := r.do(op("a", tt.a...)), r.do(op("b", tt.b...))
				a.mustRun()
				if b.started == tt.clash {
					t.Errorf("second started: %v", b.started)
				}
				a.end(nil)
				b.mustRun()
				b.end(nil)
				r.mustBeEmpty()
			})
		})
	}
}

// A stream of shared holders must not starve an exclusive one, nor operations
// with few keys one with many.
func TestFIFO(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		s1 := r.do(op("s1", "~x"))
		y := r.do(op("y", "y"))
		both := r.do(op("both", "x", "y"))
		s2 := r.do(op("s2", "~x"))
		y2 := r.do(op("y2", "y"))
		s1.mustRun()
		y.mustRun()
		both.mustWait()
		s2.mustWait()
		y2.mustWait()
		s1.end(nil)
		both.mustWait() // all or nothing
		s2.mustWait()
		y.end(nil)
		both.mustRun()
		s2.mustWait()
		y2.mustWait()
		both.end(nil)
		s2.mustRun()
		y2.mustRun()
		s2.end(nil)
		y2.end(nil)
		r.mustBeEmpty()
	})
}

func TestKeyTableShrinks(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		stays := r.do(op("a", "stays")) // as one that is stuck does
		var all []*call
		for i := range 2 * maxIdle {
			all = append(all, r.do(op("a", fmt.Sprint(i))))
		}
		for _, c := range all {
			c.end(nil)
		}
		if r.table.keys.peak > maxIdle {
			t.Error("the map of a rush is kept")
		}
		r.do(op("b", "stays")).mustWait()
		stays.end(nil)
	})
}
