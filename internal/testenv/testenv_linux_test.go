package testenv

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const envLeave = "CSIKIT_TESTENV_LEAVE" // what TestLeave leaves behind

func TestMain(m *testing.M) { Main(m) }

// TestLeave is careless when it is told to.
func TestLeave(t *testing.T) {
	var cmd *exec.Cmd
	switch leave := os.Getenv(envLeave); leave {
	case "process", "killed":
		cmd = exec.Command("sleep", "60")
		cmd.Env, cmd.SysProcAttr = []string{}, &syscall.SysProcAttr{Setsid: true}
		err := cmd.Start()
		if leave == "killed" && err == nil {
			err = cmd.Process.Kill()
		}
		if err != nil {
			t.Fatal(err)
		}
	case "loop":
		img := filepath.Join(t.TempDir(), "img")
		if err := os.WriteFile(img, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("losetup", "-f", img).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
}

// TestLeftBehind: what a test leaves is named, is a failure, and is taken away.
func TestLeftBehind(t *testing.T) {
	Root(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for leave, want := range map[string]string{
		"nothing": "PASS", "killed": "PASS", "process": "process left behind", "loop": "loop device left behind",
	} {
		t.Run(leave, func(t *testing.T) {
			cmd := exec.Command(exe, "-test.run=^TestLeave$")
			cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool {
				return strings.HasPrefix(kv, envInside+"=")
			}), envLeave+"="+leave)
			out, err := cmd.CombinedOutput()
			if !strings.Contains(string(out), want) || (err == nil) != (want == "PASS") {
				t.Errorf("%v, and it does not say %q:\n%s", err, want, out)
			}
		})
	}
}

// TestTakeBack: nothing of what was made below the directory is left.
func TestTakeBack(t *testing.T) {
	Root(t)
	dir := t.TempDir()
	img, mnt := filepath.Join(dir, "img"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.WriteFile(img, make([]byte, 1<<20), 0o600), os.Mkdir(mnt, 0o700)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := syscall.Mount("tmpfs", mnt, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("losetup", "-f", img).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if err := TakeBack(dir); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(b), dir) {
		t.Errorf("still mounted, %v", err)
	}
	if err := leftLoops(dir); err != nil {
		t.Error(err)
	}
}
