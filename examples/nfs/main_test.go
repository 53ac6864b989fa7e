package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/csikit/csikit/backends/nfs"
	"github.com/csikit/csikit/internal/testenv"
)

// envDriver makes of this test the driver itself: in the VM nothing is built.
const envDriver = "CSIKIT_NFS_DRIVER"

func TestMain(m *testing.M) {
	switch {
	case nfs.IsWorker():
		os.Exit(nfs.RunWorker())
	case os.Getenv(envDriver) != "":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := run(ctx, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		testenv.Main(m)
	}
}

func TestFlags(t *testing.T) {
	s, err := parse([]string{"-share", "main=nfs1:/srv,nconnect=4,vers=4.2", "-share", "six=[fd00::1]:/", "-share", "here=/data", "-legacy", "use", "-mode", "node"})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(s.Shares, s.Legacy, s.Half)
	if want := "[main (nfs1:/srv) six ([fd00::1]:/) /data] 1 2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s, err = parse([]string{"-share", "here=/data", "-register", "-kubelet-dir", "/k", "-health", ":1", "-kubelet-endpoint", "/k/csi.sock"})
	if err != nil || s.registry != "/k/plugins_registry" || s.health != ":1" || s.registered != "/k/csi.sock" {
		t.Errorf("%+v, %v", s, err)
	}
	id := strings.Repeat("A", 26)
	if s, err = parse([]string{"-share", "main=/data", "-share", "more=/more", "-share-id", "more=" + id, "-state-dir", "/d"}); err != nil || s.Shares[0].ID != "" || s.Shares[1].ID != id || s.StateDir != "/d/shares" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, args := range [][]string{{"-share", "main=/d", "-share-id", "other=" + id}, {"-share", "main=/d", "-share-id", "main"}, {"-share", "main=/d", "-share-id", "main="}, {"-share", "main"}, {"-share", "main=nfs1"}, {"-mode", "neither"}, {"-legacy", "perhaps"}, {"more"}, {"-shares", "/none"}, {"-share", "here=/data", "-register"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

// TestReadme: the flags that the README lists are those of the program.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{
		"endpoint", "state-dir", "kubelet-dir", "register", "kubelet-endpoint", "health", "mode", "driver", "node-id", "share", "share-id", "shares", "any-share", "init", "installation",
		"on-delete", "legacy", "quota", "hook", "hook-snapshots", "ephemeral",
	} {
		if !strings.Contains(string(readme), "| `-"+f+"` |") {
			t.Errorf("README.md does not list -%s", f)
		}
	}
}
