package mounter

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/internal/testenv"
)

// TestMountHelper: a helper gets its secrets by environment and file, never on
// its command line.
func TestMountHelper(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	script := "#!/bin/sh\nexec >" + out + "\necho \"args: $*\"\necho \"env: $PASSWD\"\n" +
		"f=${4##*keyfile=}\necho \"file: $(cat \"${f%%,*}\")\"\n"
	if err := os.WriteFile(filepath.Join(dir, "mount.fake"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	k := linux{run: command.New(nil), helpers: []string{filepath.Join(dir, "nothing"), dir}}
	err := k.Mount(t.Context(), MountRequest{
		Source: "server:/export", FSType: "fake", Target: "/target", Options: []string{"vers=4.2", "noatime"}, ReadOnly: true,
		Env:   backends.NewSecrets(map[string]string{"PASSWD": "geheim-1"}),
		Files: map[string]backends.Secret{"keyfile": backends.NewSecret("geheim-2")},
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	if want := "args: server:/export /target -o vers=4.2,noatime,ro,keyfile=/"; !strings.HasPrefix(lines[0], want) || strings.Contains(lines[0], "geheim") {
		t.Errorf("%s", lines[0])
	}
	if lines[1] != "env: geheim-1" || lines[2] != "file: geheim-2" {
		t.Errorf("%q", lines[1:])
	}
	for fsType, want := range map[string]string{"fake": "mount.fake", "fake.sub": "mount.fake", "other": ".", "../fake": "."} {
		p, args := k.mountHelper(fsType)
		if filepath.Base(p) != want || (len(args) > 0) != (fsType == "fake.sub") {
			t.Errorf("%s: %q %v", fsType, p, args)
		}
	}
	err = k.Mount(t.Context(), MountRequest{Source: "s", FSType: "fake", Target: "/t", Options: []string{"remount"}})
	if err == nil {
		t.Error("a mount flag that makes another kind of mount was passed on")
	}
	if err = k.Mount(t.Context(), MountRequest{Source: "-h", FSType: "fake", Target: "/t"}); err == nil {
		t.Error("a source that is an option was passed on")
	}
}

func TestVolatile(t *testing.T) {
	testenv.Root(t)
	k := linux{}
	why, err := k.Volatile("/dev/shm")
	if err != nil || why == "" {
		t.Errorf("/dev/shm: %q, %v", why, err)
	}
	if why, err = k.Volatile("/sys"); err != nil || why != "" {
		t.Errorf("/sys: %q, %v", why, err)
	}
}

func TestBootID(t *testing.T) {
	id, err := linux{}.BootID()
	if err != nil || len(id) != 36 {
		t.Errorf("%q, %v", id, err)
	}
}

// TestBesideCopy: a kernel before 6.7 takes a copy of a btrfs for the other one.
func TestBesideCopy(t *testing.T) {
	sys := t.TempDir()
	if _, err := besideCopy(MountRequest{FSType: "btrfs"}, sys); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("got %v", err)
	}
	if err := os.MkdirAll(filepath.Join(sys, "features/temp_fsid"), 0o700); err != nil {
		t.Fatal(err)
	}
	if m, err := besideCopy(MountRequest{FSType: "btrfs"}, sys); err != nil || len(m.Options) > 0 {
		t.Errorf("got %v, %v", m.Options, err)
	}
	options := append(make([]string, 0, 2), "discard")
	m, err := besideCopy(MountRequest{FSType: "xfs", Options: options}, sys)
	if err != nil || len(m.Options) != 2 || m.Options[1] != "nouuid" || options[:2][1] != "" {
		t.Errorf("got %v of %v, %v", m.Options, options[:2], err)
	}
}
