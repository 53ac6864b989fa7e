package mnt_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

func TestUnmount(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		p := mkdir(t, d, "p")
		bind(t, p, p)
		bind(t, p, p)
		link := d + "/link"
		must(t, os.Symlink(p, link))
		steps := []struct {
			path string
			was  bool
		}{
			{link, false}, {link + "/", false}, {p + "/", true}, {p, true}, {p, false},
			{d + "/missing", false}, {mkfile(t, d, "file"), false}, {mkdir(t, d, "plain"), false},
		}
		for i, s := range steps {
			if was, err := mnt.Unmount(s.path); was != s.was || err != nil {
				t.Errorf("step %d: Unmount(%s) = %v, %v; want %v", i, s.path, was, err, s.was)
			}
		}
	})
}

func TestUnwind(t *testing.T) {
	onKernels(t, func(t *testing.T) {
		d := tempDir(t)
		p := mkdir(t, d, "p")
		for range 5 {
			bind(t, p, p)
		}
		if n, err := mnt.Unwind(p); n != 5 || err != nil {
			t.Errorf("Unwind = %d, %v", n, err)
		}
		if isMount(t, p) {
			t.Error("still a mount point")
		}
		for _, p := range []string{p, d + "/missing"} {
			if n, err := mnt.Unwind(p); n != 0 || err != nil {
				t.Errorf("Unwind(%s) = %d, %v", p, n, err)
			}
		}
	})
}

func TestUnwindIsBounded(t *testing.T) {
	testenv.Root(t)
	d := tempDir(t)
	p := mkdir(t, d, "p")
	for range 1025 {
		bind(t, p, p)
	}
	if n, err := mnt.Unwind(p); n != 1024 || err == nil {
		t.Errorf("first Unwind = %d, %v", n, err)
	}
	if n, err := mnt.Unwind(p); n != 1 || err != nil {
		t.Errorf("second Unwind = %d, %v", n, err)
	}
}

func TestBusyNamesHolders(t *testing.T) {
	testenv.Root(t)
	d := tempDir(t)
	p := mkdir(t, d, "real/p")
	must(t, os.Symlink(d+"/real", d+"/link"))
	must(t, unix.Mount("none", p, "tmpfs", 0, ""))
	f, err := os.Create(p + "/file")
	must(t, err)
	defer f.Close()
	bind(t, mkdir(t, d, "other"), mkdir(t, p, "sub"))

	was, err := mnt.Unmount(d + "/link/p")
	if was || !errors.Is(err, backends.ErrInUse) || !errors.Is(err, unix.EBUSY) {
		t.Fatalf("Unmount = %v, %v", was, err)
	}
	for _, want := range []string{p + "/sub", fmt.Sprintf("process %d (", os.Getpid()), fmt.Sprintf("by fd/%d", f.Fd()), d + "/link/p"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %q", want, err)
		}
	}
	if n, err := mnt.Unwind(p); n != 0 || !errors.Is(err, backends.ErrInUse) {
		t.Errorf("Unwind = %d, %v", n, err)
	}
	if was, err := mnt.Detach(p); !was || err != nil || isMount(t, p) {
		t.Errorf("Detach = %v, %v", was, err)
	}
}

// inUserNamespace runs the calling test again in a process that is root in a user
// namespace of its own only, and returns false here and true there.
func inUserNamespace(t *testing.T, arg string) (string, bool) {
	testenv.Root(t)
	const env = "CSIKIT_TEST_USERNS"
	if arg := os.Getenv(env); arg != "" {
		return arg, true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), env+"="+arg)
	ids := []syscall.SysProcIDMap{{Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids}
	out, err := cmd.CombinedOutput()
	testenv.UserNamespace(t, err)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return "", false
}

// A mount that came from a more privileged namespace is locked: EINVAL, as for
// what is no mount point at all, but not the same.
func TestUnmountLocked(t *testing.T) {
	var p string
	if os.Getuid() == 0 && os.Getenv("CSIKIT_TEST_USERNS") == "" {
		p = mkdir(t, tempDir(t), "p")
		bind(t, p, p)
	}
	p, inside := inUserNamespace(t, p)
	if !inside {
		return
	}
	if was, err := mnt.Unmount(p); was || !errors.Is(err, unix.EINVAL) {
		t.Errorf("Unmount = %v, %v", was, err)
	}
	if n, err := mnt.Unwind(p); n != 0 || err == nil {
		t.Errorf("Unwind = %d, %v", n, err)
	}
}

// The root is asked about, but never changed: umount2 makes its file system
// read-only. A failure of this test must not do that either, hence where it runs.
func TestRootIsNoTarget(t *testing.T) {
	if _, inside := inUserNamespace(t, "/"); !inside {
		return
	}
	errs := map[string]error{}
	_, errs["Unmount"] = mnt.Unmount("//")
	_, errs["Detach"] = mnt.Detach("/")
	_, errs["Unwind"] = mnt.Unwind("/")
	errs["Mount"] = mnt.Mount("none", "tmpfs", "/", mnt.Options{})
	errs["Bind"] = mnt.Bind("/", "/", mnt.BindOptions{})
	errs["SetReadOnly"] = mnt.SetReadOnly("/", false)
	for name, err := range errs {
		if !errors.Is(err, backends.ErrInvalid) {
			t.Errorf("%s of /: %v", name, err)
		}
	}
}

// startProcesses starts one process after the other until the test ends.
func startProcesses(t *testing.T) {
	testenv.Tool(t, "true")
	stop := make(chan struct{})
	var starts sync.WaitGroup
	starts.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := exec.Command("true").Run(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	t.Cleanup(func() { close(stop); starts.Wait() })
}

// A process that starts while Bind runs must not get a copy of the new mount's
// descriptor: the mount would be busy for a moment after Bind.
func TestBindLeavesNothingBusy(t *testing.T) {
	testenv.Root(t)
	d := tempDir(t)
	src, p := mkdir(t, d, "src"), mkdir(t, d, "p")
	startProcesses(t)
	for range 2000 {
		must(t, mnt.Bind(src, p, mnt.BindOptions{}))
		must(t, unix.Unmount(p, 0))
		must(t, mnt.Mount("none", "tmpfs", p, mnt.Options{}))
		must(t, unix.Unmount(p, 0))
	}
}

// A mount that is busy only because a starting process has copies of closed
// descriptors is unmounted.
func TestUnmountWhileProcessesStart(t *testing.T) {
	testenv.Root(t)
	d := tempDir(t)
	src, p := mkdir(t, d, "src"), mkdir(t, d, "p")
	mkfile(t, src, "f")
	startProcesses(t)
	for range 500 {
		bind(t, src, p)
		f, err := os.Open(p + "/f")
		must(t, err)
		must(t, f.Close())
		if was, err := mnt.Unmount(p); !was || err != nil {
			t.Fatal(was, err)
		}
	}
}
