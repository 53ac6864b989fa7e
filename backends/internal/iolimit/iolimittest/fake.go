// Package iolimittest has the limits of a kernel that tests can break.
package iolimittest

import (
	"maps"
	"slices"
	"sync"

	"github.com/csikit/csikit/backends/internal/iolimit"
)

// Fake remembers limits and keeps nobody to them.
type Fake struct {
	mu sync.Mutex
	m  map[string]iolimit.Limits

	Missing error // of Check
	Broken  error // of Set
}

// Check is Missing.
func (f *Fake) Check() error { return f.Missing }

// Get gives what was Set.
func (f *Fake) Get(dev string) (iolimit.Limits, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.m[dev], nil
}

// Set remembers.
func (f *Fake) Set(dev string, l iolimit.Limits) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Broken != nil {
		return f.Broken
	}
	if f.m == nil {
		f.m = map[string]iolimit.Limits{}
	}
	f.m[dev] = l
	return nil
}

// Forget is a cgroup that was made anew.
func (f *Fake) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m = nil
}

// Some are the limits that are not "none".
func (f *Fake) Some() []iolimit.Limits {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Values(f.m)), func(l iolimit.Limits) bool { return l == iolimit.Limits{} })
}
