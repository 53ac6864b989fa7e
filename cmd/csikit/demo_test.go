package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// build makes the command as a user would: the demo runs itself again.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "csikit")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// runDemo returns what the demo printed and its exit code.
func runDemo(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	t.Logf("%s", out)
	return string(out), cmd.ProcessState.ExitCode()
}

const clean = "0 mounts, 0 loop devices, 0 files left\n"

func TestDemo(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.xfs", "mkfs.ext4", "xfs_growfs", "resize2fs")
	out, code := runDemo(t, exec.CommandContext(t.Context(), build(t), "demo"))
	if code != 0 || !strings.HasSuffix(out, clean) {
		t.Errorf("exit code %d, and it does not end with %q", code, clean)
	}
	for _, want := range []string{"== xfs", "== ext4", "df pod-1: 448 MiB -> 704 MiB", "read-only file system", "kill -9", "DeleteVolume"} {
		if !strings.Contains(out, want) {
			t.Errorf("the demo does not show %q", want)
		}
	}
}

// TestDemoSeesLeaks plants what a broken driver would leave: the demo counts it
// and fails.
func TestDemoSeesLeaks(t *testing.T) {
	testenv.Root(t)
	bin := build(t)
	leaks := map[string]func(t *testing.T, dir string){
		"1 mounts, 0 loop devices, 0 files left\n": plantMount,
		"0 mounts, 1 loop devices, 1 files left\n": plantLoop,
		"0 mounts, 0 loop devices, 1 files left\n": plantFile,
	}
	for want, plant := range leaks {
		t.Run(want, func(t *testing.T) {
			dir := t.TempDir()
			plant(t, dir)
			out, code := runDemo(t, exec.CommandContext(t.Context(), bin, "demo", "-fs", "xfs", "-dir", dir))
			if code != 1 || !strings.Contains(out, want) {
				t.Errorf("exit code %d, and it does not say %q", code, want)
			}
		})
	}
}

func plantMount(t *testing.T, dir string) {
	point := filepath.Join(dir, "pods", "left")
	if err := os.MkdirAll(point, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := mnt.Bind(t.TempDir(), point, mnt.BindOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := mnt.Unwind(point); err != nil {
			t.Error(err)
		}
	})
}

func plantLoop(t *testing.T, dir string) {
	plantFile(t, dir)
	f, err := os.OpenFile(filepath.Join(dir, "state", "left"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	l, err := blockdev.AttachLoop(t.Context(), f, blockdev.AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := blockdev.DetachLoop(context.WithoutCancel(t.Context()), l.Path, l.Dev, l.Ino); err != nil {
			t.Error(err)
		}
	})
}

func plantFile(t *testing.T, dir string) {
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "state", "left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDemoWithoutRoot runs the demo as nobody, in a user namespace.
func TestDemoWithoutRoot(t *testing.T) {
	testenv.Root(t)
	bin := build(t)
	dir, err := os.MkdirTemp("/tmp", "csikit-rootless-") //nolint:usetesting // TMPDIR is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const nobody = 65534
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	bin = filepath.Join(dir, "csikit") // where nobody can read it
	if err := errors.Join(os.WriteFile(bin, data, 0o755), os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "tmp"), 0o777), os.Chmod(filepath.Join(dir, "tmp"), 0o777)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "demo")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(dir, "tmp"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, code := runDemo(t, cmd)
	if strings.Contains(out, "a user namespace cannot be made here") {
		testenv.UserNamespace(t, syscall.EPERM)
	}
	if code != 0 || !strings.HasSuffix(out, clean) || !strings.Contains(out, "What this cannot show") {
		t.Errorf("exit code %d, and it does not end with %q after saying what it cannot show", code, clean)
	}
}

func TestUsage(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), nil, &out); err != nil || !strings.Contains(out.String(), "csikit demo") {
		t.Errorf("without arguments: %v, %q", err, out.String())
	}
	if err := run(t.Context(), []string{"frobnicate"}, &out); !errors.Is(err, errUsage) {
		t.Errorf("an unknown command: %v", err)
	}
}
