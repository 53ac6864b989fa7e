//go:build csikit_faults && unix

package faultpoint

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// fault is what the environment asks for.
type fault struct {
	spec, log string
	thread    bool

	mu    sync.Mutex
	at    string // the name and number that count belongs to
	count int
}

// asked is the one state of a build that is made to be killed.
var asked = sync.OnceValue(func() *fault {
	return &fault{spec: os.Getenv("CSIKIT_FAULT"), log: os.Getenv("CSIKIT_FAULT_LOG"), thread: os.Getenv("CSIKIT_FAULT_THREAD") != ""}
})

// Reach says that the process is at a place with a name, where it may be killed.
func Reach(name string) { asked().reach(name) }

func (f *fault) reach(name string) {
	if f.thread {
		runtime.LockOSThread()
	}
	if f.spec == "" && f.log == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.note(name); err != nil {
		panic(err) // the test would take a name for unreached
	}
	at := f.spec
	if file, ok := strings.CutPrefix(at, "@"); ok {
		b, _ := os.ReadFile(file) // a missing one asks for nothing
		at = strings.TrimSpace(string(b))
	}
	if at != f.at {
		f.at, f.count = at, 0
	}
	want, number, _ := strings.Cut(at, ":")
	if want != name && want != "*" {
		return
	}
	f.count++
	if n, err := strconv.Atoi(number); err == nil && n == f.count {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing refuses that
		select {}
	}
}

func (f *fault) note(name string) error {
	if f.log == "" {
		return nil
	}
	w, err := os.OpenFile(f.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, name)
	if e := w.Close(); err == nil {
		err = e
	}
	return err
}
