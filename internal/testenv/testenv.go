// Package testenv gives tests the machine they need and takes it back: a mount
// namespace of their own, a temporary directory in which every backing file
// lies, a VM with the kernel parts that the host lacks, and at the end a look at
// what was left behind.
//
// A test that needs something says so with [Root], [Tool] or [InVM]. What is
// missing is named in the skip, and is a failure where CSIKIT_REQUIRE lists it
// (root, vm, tools, userns, history), as CI does.
package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	envInside  = "CSIKIT_TEST_INSIDE" // set in the re-executed process
	envRequire = "CSIKIT_REQUIRE"     // comma-separated: root, vm, tools, userns, history
	envVM      = "IN_VM"              // set by test/vm/run-in-vm.sh
	envLimit   = "CSIKIT_VM_LIMIT"    // how long a test in the VM may take; without it vmLimit
)

// missing skips the test, or fails it when CSIKIT_REQUIRE says that this
// machine has the thing.
func missing(t testing.TB, class, what string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv(envRequire), ","), class) {
		t.Fatalf("missing: %s, and %s requires %s", what, envRequire, class)
	}
	t.Skipf("missing: %s", what)
}

// Root skips the test unless it runs as root in a mount namespace of its own,
// which TestMain must have asked for with [Main].
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root", "root")
	}
	if os.Getenv(envInside) == "" {
		t.Fatal("testenv.Root needs TestMain to call testenv.Main")
	}
}

// Tool skips the test unless all of the named programs are installed.
func Tool(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			missing(t, "tools", "program "+n)
		}
	}
}

// UserNamespace skips the test where err says that no user namespace can be
// made: in a chroot, and in most containers.
func UserNamespace(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, syscall.EPERM) {
		missing(t, "userns", "user namespaces (not in a chroot, and in few containers)")
	}
}

// vmLimit is how long a test in the VM may take: less than go test gives a package.
const vmLimit = 10 * time.Minute

// VMLimit is how long a test in the VM may take, as CSIKIT_VM_LIMIT says ("30m"): one
// that takes longer is ended.
func VMLimit(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv(envLimit)
	if text == "" {
		return vmLimit
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s=%q: want a duration", envLimit, text)
	}
	return d
}

// InVM reports whether this process runs in the VM of test/vm. When it does
// not, InVM runs the calling test there, with the given disks ("1G"), reports
// its outcome as this test's, and returns false: the caller then returns.
func InVM(t *testing.T, disks ...string) bool {
	t.Helper()
	if os.Getenv(envVM) != "" {
		return true
	}
	script := filepath.Join(moduleRoot(t), "test", "vm", "run-in-vm.sh")
	if os.Geteuid() != 0 {
		missing(t, "vm", "root, to boot the VM")
	}
	limit := VMLimit(t)
	args := []string{}
	for _, d := range disks {
		args = append(args, "-d", d)
	}
	exe, err := guestBinary(t)
	if err != nil {
		t.Fatal(err)
	}
	// The binary is copied below the working directory's module, which the guest
	// sees live; a go-build directory may be gone or cached there.
	args = append(args, "-w", filepath.Dir(exe), "--", exe, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+limit.String())
	cmd := exec.Command(script, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, envInside+"=") || strings.HasPrefix(kv, "TMPDIR=")
	}), fmt.Sprintf("VM_TIMEOUT=%d", int(limit.Seconds())))
	out, err := cmd.CombinedOutput()
	t.Logf("in the VM:\n%s", out)
	switch {
	case cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 125:
		missing(t, "vm", "a VM that boots (test/vm/run-in-vm.sh)")
	case err != nil:
		t.Fatalf("in the VM: %v", err)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("in the VM: %s did not run", t.Name())
	}
	return false
}

// guestBinary is this test's own, without the race detector: the guest has one
// CPU, and now and then the detector ends there with a segmentation fault.
func guestBinary(t testing.TB) (string, error) {
	if !raceDetector {
		return os.Executable()
	}
	bin := filepath.Join(t.TempDir(), "guest.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", bin, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build for the guest: %w\n%s", err, out)
	}
	return bin, nil
}

// moduleRoot is the directory of go.mod above the test's own.
func moduleRoot(t testing.TB) string {
	t.Helper()
	d, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; d != "/"; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
	}
	t.Fatal("no go.mod above the test")
	return ""
}
