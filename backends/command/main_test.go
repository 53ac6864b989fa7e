package command

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// script writes a shell script below a directory of the test, and at the test's
// end looks for what it left: processes, goroutines, descriptors.
func script(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	// With its first pipe the Go runtime opens what it waits by, for good.
	for _, end := range pipe(t) {
		_ = end.Close() // nothing was written
	}
	goroutines, fds := runtime.NumGoroutine(), openFiles()
	t.Cleanup(func() {
		eventually(t, "no process, goroutine or descriptor left", func() bool {
			return len(running(dir)) == 0 && runtime.NumGoroutine() <= goroutines && openFiles() <= fds
		})
	})
	p := filepath.Join(dir, "tool")
	if err := os.WriteFile(p, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func pipe(t *testing.T) [2]*os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return [2]*os.File{r, w}
}

// eventually waits for what another process brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("not within 30 s: %s\n%s", what, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// running lists the processes that have dir in their command line.
func running(dir string) []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && pid != os.Getpid() && bytes.Contains(b, []byte(dir)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func openFiles() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // not Linux
	}
	return len(d)
}

// readLine waits for a file with a whole line in it, and gives the line.
func readLine(t *testing.T, path string) string {
	t.Helper()
	var line string
	eventually(t, path+" has a line", func() bool {
		b, _ := os.ReadFile(path)
		var ok bool
		line, _, ok = strings.Cut(string(b), "\n")
		return ok
	})
	return line
}

func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) && runtime.GOOS != "linux"
	}
	return !strings.Contains(string(b), ") Z ")
}
