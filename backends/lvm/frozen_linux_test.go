package lvm

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/fsfreeze"
)

// frozenElsewhere: what another process has frozen stays so until that has thawed it, or
// the child of it that was killed; then it is thawed, and can be frozen again.
func frozenElsewhere(t *testing.T) {
	b := both(t, testOptions())
	var vols []*backends.Volume
	var dirs []*os.File
	for i := range 2 {
		v, path := mountedVolume(t, b, fmt.Sprint("pvc-", i), "linear")
		dir, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		vols, dirs = append(vols, v), append(dirs, dir)
	}
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), envFreeze+"="+vols[0].ID+" "+vols[1].ID)
	other.Stderr = os.Stderr
	out, err := other.StdoutPipe()
	if err == nil {
		err = other.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	end := func() {
		_ = other.Process.Kill()
		_ = other.Wait() // killed
	}
	defer end()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "frozen\n" {
		t.Fatalf("%q, %v", line, err)
	}
	both(t, testOptions())
	o := testOptions()
	o.FreezeLimit = time.Millisecond
	hasty := open(t, o)
	left := func(when string) {
		t.Helper()
		for _, d := range dirs {
			if !stillFrozen(t, d) {
				t.Errorf("%s: the next process has thawed %s", when, d.Name())
			}
		}
		if g, err := groupOf(t, hasty, "g", vols...); !errors.Is(err, backends.ErrPending) {
			t.Errorf("%s: a group of what another process has frozen: %+v, %v", when, g, err)
		}
	}
	left("while it lives")

	children := childrenOf(t, other.Process.Pid)
	if len(children) != len(dirs) {
		t.Fatal(children)
	}
	for _, pid := range children { // as slow as can be
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	}
	end()
	b = both(t, testOptions())
	left("when it was killed")
	for _, pid := range children {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := groupOf(t, b, "g", vols...); err != nil {
		t.Error(err)
	}
	noMarks(t)
}

func childrenOf(t *testing.T, parent int) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue // it has ended
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) > 1 && f[1] == strconv.Itoa(parent) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(s)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// thawedMeanwhile is what an administrator does, or a guest agent.
func thawedMeanwhile(t *testing.T) {
	b := both(t, testOptions())
	var vols []*backends.Volume
	var path string
	for i := range 2 {
		var v *backends.Volume
		v, path = mountedVolume(t, b, fmt.Sprint("pvc-", i), "linear")
		vols = append(vols, v)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	b.step = func(at string) {
		if at == "group:member cut" {
			if err := fsfreeze.Thaw(dir); err != nil {
				t.Error(err)
			}
		}
	}
	if g, err := groupOf(t, b, "g", vols...); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("a group of which one was thawed before all were cut: %+v, %v", g, err)
	}
	wantOnly(t, nameOf(kindVolume, "pvc-0"), nameOf(kindVolume, "pvc-1"))
	noMarks(t)
	b.step = func(string) {}
	if _, err := groupOf(t, b, "g", vols...); err != nil {
		t.Errorf("again: %v", err)
	}
}
