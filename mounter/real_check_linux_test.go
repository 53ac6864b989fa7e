package mounter_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

// withTool puts a shell script before a tool, whose path it has in $REAL, for the
// engine that comes next. Calls are counted.
func (r *realRig) withTool(node backends.Node, name, script string) (calls func() int) {
	r.t.Helper()
	bin := r.t.TempDir()
	log := filepath.Join(bin, "log")
	real, err := exec.LookPath(name)
	must(r.t, err)
	must(r.t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho \"$@\" >>"+log+"\nREAL="+real+"\n"+script+"\n"), 0o700)) //nolint:gosec // a program
	must(r.t, r.Close())
	e, err := mounter.New(node, &mounter.Options{
		StateDir: r.state, AllowVolatileState: true, Command: command.New(&command.Options{Path: bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}),
	})
	must(r.t, err)
	must(r.t, e.Start(r.t.Context()))
	r.Engine = e
	return func() int {
		b, _ := os.ReadFile(log) // missing: none
		return strings.Count(string(b), "\n")
	}
}

const runReal = `exec $REAL "$@"`

// formatted makes a volume of a type with a file in it.
func (r *realRig) formatted(id, fsType string) {
	r.t.Helper()
	r.node.make(id, 320*mib)
	r.stage(id, fsType)
	must(r.t, os.WriteFile(r.path("staging-"+id+"/file"), []byte("data"), 0o600))
	r.unstage(id)
}

// TestRealCheckOnlyWhenAsked: a file system that was unmounted in order is not
// checked, nor one whose journal the kernel replays. One that recorded errors is,
// and one without a journal that was not unmounted.
func TestRealCheckOnlyWhenAsked(t *testing.T) {
	for _, c := range []struct {
		name, fsType string
		spoil        func(r *realRig)
		want         int
	}{
		{"clean", "ext4", func(*realRig) {}, 0},
		{"journal", "ext4", func(r *realRig) { r.dirty("v", "ext4") }, 0},
		{"errors", "ext4", func(r *realRig) { run(r.t, "debugfs", "-w", "-R", "ssv state 2", r.node.file("v")) }, 1},
		{"errors and journal", "ext4", func(r *realRig) {
			r.dirty("v", "ext4")
			run(r.t, "debugfs", "-w", "-R", "ssv state 2", r.node.file("v"))
		}, 1},
		{"no journal", "ext2", func(r *realRig) { r.dirty("v", "ext2") }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			testenv.Tool(t, "debugfs", "e2fsck")
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			r.formatted("v", c.fsType)
			c.spoil(r)
			calls := r.withTool(n, "e2fsck", runReal)
			r.stage("v", "")
			r.holds("staging-v/file", "data")
			if got := calls(); got != c.want {
				t.Errorf("%d checks, want %d", got, c.want)
			}
			r.unstage("v")
			r.stage("v", "") // it is clean now
			r.unstage("v")
			if got := calls(); got != c.want {
				t.Errorf("%d checks after a second stage, want %d", got, c.want)
			}
			r.gone("v")
		})
	}
}

// TestRealRepaired: what e2fsck repairs without asking is repaired and mounted.
func TestRealRepaired(t *testing.T) {
	testenv.Tool(t, "debugfs", "e2fsck")
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	r.formatted("v", "ext4")
	run(t, "debugfs", "-w", "-R", "ssv free_blocks_count 7", n.file("v"))
	run(t, "debugfs", "-w", "-R", "ssv state 2", n.file("v"))
	calls := r.withTool(n, "e2fsck", runReal)
	r.stage("v", "")
	st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("staging-v")})
	must(t, err)
	if b, _ := os.ReadFile(r.path("staging-v/file")); string(b) != "data" || calls() != 1 || st.Available < 100*mib {
		t.Errorf("read back %q after %d checks, %d available", b, calls(), st.Available)
	}
	r.unstage("v")
	run(t, "e2fsck", "-n", "-f", n.file("v"))
	r.gone("v")
}

// TestRealUnrepairable: what e2fsck may not repair unasked is not mounted, and the
// CO is told in its words.
func TestRealUnrepairable(t *testing.T) {
	testenv.Tool(t, "debugfs", "e2fsck")
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	r.formatted("v", "ext4")
	run(t, "debugfs", "-w", "-R", "clri <2>", n.file("v")) // the root
	run(t, "debugfs", "-w", "-R", "ssv state 2", n.file("v"))
	for range 2 {
		err := r.Stage(t.Context(), r.stageReq("v", "ext4"))
		wantKind(t, err, backends.ErrPrecondition)
		if s := err.Error(); !strings.Contains(s, "UNEXPECTED INCONSISTENCY") || !strings.Contains(s, n.file("v")) && !strings.Contains(s, "/dev/loop") {
			t.Errorf("not the words of the tool: %v", err)
		}
		if r.isMount("staging-v") {
			t.Fatal("mounted")
		}
		r.gone("v")
	}
	_ = exec.Command("e2fsck", "-f", "-y", n.file("v")).Run() // says what it repaired by its exit code
	r.stage("v", "ext4")
	r.unstage("v")
}

// TestRealCheckFails: a check that is killed, or fails in any way of its own, is no
// check; nothing is mounted, and the CO comes back.
func TestRealCheckFails(t *testing.T) {
	for name, script := range map[string]string{
		"killed": "kill -9 $$", "terminated": "kill $$", "operational": "exit 8", "usage": "exit 16", "canceled": "exit 32", "library": "exit 128",
		"repaired and failed": "exit 9",
	} {
		t.Run(name, func(t *testing.T) {
			testenv.Tool(t, "debugfs", "e2fsck")
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			r.formatted("v", "ext4")
			run(t, "debugfs", "-w", "-R", "ssv state 2", n.file("v"))
			r.withTool(n, "e2fsck", script)
			for range 2 {
				wantKind(t, r.Stage(t.Context(), r.stageReq("v", "ext4")), backends.ErrUnavailable)
				if r.isMount("staging-v") {
					t.Fatal("mounted")
				}
			}
			r.withTool(n, "e2fsck", runReal)
			r.stage("v", "ext4")
			r.unstage("v")
			r.gone("v")
		})
	}
}
