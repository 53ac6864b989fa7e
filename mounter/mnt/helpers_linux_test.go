package mnt_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/mounter/internal/mountapi"
	"github.com/csikit/csikit/mounter/internal/mounttest"
	"github.com/csikit/csikit/mounter/mnt"
)

// kernels are the interfaces with which every test of a mount runs.
var kernels = []mounttest.Kernel{
	{Name: "new", Hide: mountapi.None},
	{Name: "old", Hide: mountapi.All},
	{Name: "without statx root", Hide: mountapi.MountRoot},
	{Name: "without statmount", Hide: mountapi.Statmount | mountapi.UniqueID},
}

func onKernels(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	mounttest.OnKernels(t, kernels, test)
}

var (
	tempDir  = mounttest.TempDir
	mkdir    = mounttest.Dir
	mkfile   = mounttest.File
	hungFUSE = mounttest.HungFUSE
	deadFUSE = mounttest.DeadFUSE
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func bind(t testing.TB, source, target string) {
	t.Helper()
	must(t, unix.Mount(source, target, "", unix.MS_BIND, ""))
}

func isMount(t testing.TB, path string) bool {
	t.Helper()
	is, err := mnt.IsMountPoint(path)
	must(t, err)
	return is
}
