package mnt_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/internal/mountapi"
	"github.com/csikit/csikit/mounter/mnt"
)

const label = "system_u:object_r:container_file_t:s0:c15,c25"

// TestSELinuxContext: how the label that kubelet gives reaches the kernel. Quotes
// keep its comma in the data of mount(2), and are no part of what fsconfig takes.
func TestSELinuxContext(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "strace")
	for api, want := range map[string]string{
		"new": `FSCONFIG_SET_STRING, "context", "` + label + `", 0)`,
		"old": `, "size=1m,context=\"` + label + `\"")`,
	} {
		t.Run(api, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "strace")
			exe, err := os.Executable()
			must(t, err)
			c := exec.Command("strace", "-f", "-qq", "-s", "200", "-o", log, "-e", "trace=fsconfig,mount", exe, "-test.run=^TestSELinuxMountHelper$")
			c.Env = append(os.Environ(), "MNT_HELPER_API="+api)
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			b, err := os.ReadFile(log)
			must(t, err)
			if !strings.Contains(string(b), want) {
				t.Errorf("%q is not in\n%s", want, b)
			}
		})
	}
}

// TestSELinuxMountHelper is the process that TestSELinuxContext watches.
func TestSELinuxMountHelper(t *testing.T) {
	api := os.Getenv("MNT_HELPER_API")
	if api == "" {
		t.Skip("for another test")
	}
	if api == "old" {
		t.Cleanup(mountapi.Hide(mountapi.All))
	}
	_ = mountLabelled(t) // what comes of it depends on the kernel
}

func mountLabelled(t *testing.T) error {
	t.Helper()
	o, err := mnt.ParseOptions([]string{"size=1m", `context="` + label + `"`})
	must(t, err)
	dir := tempDir(t)
	p := filepath.Join(dir, "m")
	must(t, os.Mkdir(p, 0o700))
	return mnt.Mount("none", "tmpfs", p, o)
}

// TestWithoutSELinux: a label is never dropped without a word.
func TestWithoutSELinux(t *testing.T) {
	b, err := os.ReadFile("/proc/filesystems")
	must(t, err)
	if strings.Contains(string(b), "selinuxfs") {
		t.Skip("this kernel has SELinux")
	}
	onKernels(t, func(t *testing.T) {
		err := mountLabelled(t)
		if !errors.Is(err, backends.ErrPrecondition) || errors.Is(err, backends.ErrInvalid) ||
			!strings.Contains(err.Error(), `"context" needs SELinux`) || strings.Contains(err.Error(), label) {
			t.Errorf("got %v", err)
		}
	})
}

func TestContext(t *testing.T) {
	for _, c := range []struct {
		options []string
		want    string
	}{
		{[]string{"ro", `noatime,context="` + label + `",nouuid`}, label},
		{[]string{"rw", `context="` + label + `"`}, label},
		{[]string{"context=a:b:c"}, "a:b:c"},
		{[]string{"fscontext=a", "seclabel"}, ""},
		{nil, ""},
	} {
		if got := mnt.Context(c.options); got != c.want {
			t.Errorf("%q: %q, want %q", c.options, got, c.want)
		}
	}
}
