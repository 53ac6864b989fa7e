package backendtest

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// recorder is a test that keeps to itself how it went.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failures []string
	skipped  string
	cleanups []func()
}

func (r *recorder) Helper()             {}
func (r *recorder) Log(...any)          {}
func (r *recorder) Logf(string, ...any) {}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) fail(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, text)
}

func (r *recorder) Error(args ...any)            { r.fail(fmt.Sprintln(args...)) }
func (r *recorder) Errorf(f string, args ...any) { r.fail(fmt.Sprintf(f, args...)) }
func (r *recorder) FailNow()                     { runtime.Goexit() }

func (r *recorder) Fatal(args ...any) {
	r.Error(args...)
	r.FailNow()
}

func (r *recorder) Fatalf(f string, args ...any) {
	r.Errorf(f, args...)
	r.FailNow()
}

func (r *recorder) Skip(args ...any) {
	r.skipped = fmt.Sprintln(args...)
	runtime.Goexit()
}

func (r *recorder) Skipf(f string, args ...any) { r.Skip(fmt.Sprintf(f, args...)) }

// record runs one check and tells how it went.
func record(t *testing.T, c check, cfg Config) *recorder {
	t.Helper()
	r := &recorder{TB: t}
	for _, f := range []func(){
		func() { c.on(r, &cfg) },
		func() {
			for _, f := range slices.Backward(r.cleanups) {
				f()
			}
		},
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() {
				if p := recover(); p != nil {
					r.fail(fmt.Sprint("panic: ", p))
				}
			}()
			f()
		}()
		<-done
	}
	return r
}
