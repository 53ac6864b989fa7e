// Package fusetest has programs for tests of FUSE volumes, in the test's own
// binary: a file system of one file, and a host of servers.
package fusetest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/fusehost"
)

// Data is the name of the one file.
const Data = "data"

const (
	serverWord = "fusetest-server"
	hostWord   = "fusetest-host"
)

// Child runs one of the programs in a process that was started as such, and then
// says so. TestMain calls it first of all.
func Child() (was bool, err error) {
	if len(os.Args) < 3 {
		return false, nil
	}
	switch os.Args[1] {
	case serverWord:
		return true, serve(os.Args[2:])
	case hostWord:
		return true, host(os.Args[2])
	}
	return false, nil
}

// Run describes a server of the file at backing. Mode: "", "fail" (ends at once),
// "init" (ends when it has read the first request), "silent" (never answers),
// "daemon" (goes to the background).
func Run(t testing.TB, mode, backing string) *backends.FUSE {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &backends.FUSE{
		Source: "bucket-1", Subtype: "csikit-test", Options: []string{"allow_other", "nosuid"},
		Path: exe, Args: []string{serverWord, "/dev/fd/{fd}", mode, backing, "{file:key}"},
		Vars:  map[string]string{"GORACE": "atexit_sleep_ms=0"}, // so that what ends does so at once
		Env:   backends.NewSecrets(map[string]string{"FUSETEST_PASSWORD": Password}),
		Files: map[string]backends.Secret{"key": backends.NewSecret(Key)},
	}
}

// Secrets of a server, which tests look for where they must not be.
const (
	Password = "canary-password-5521"
	Key      = "canary-key-7733"
)

func host(socket string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	lis, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	return fusehost.New(&fusehost.Options{Logger: log, Grace: time.Second}).Serve(ctx, lis)
}

// Host is a host of servers in a process of its own.
type Host struct {
	*fusehost.Client
	t   testing.TB
	cmd *exec.Cmd
	Log string // a file
}

// StartHost starts one; it ends with the test.
func StartHost(t testing.TB, socket, log string) *Host {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	// It may outlive the test's context for a moment: it is ended in a cleanup.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), exe, hostWord, socket)
	cmd.Stderr = f
	if err := errors.Join(cmd.Start(), f.Close()); err != nil {
		t.Fatal(err)
	}
	h := &Host{Client: fusehost.NewClient(socket), t: t, Log: log, cmd: cmd}
	t.Cleanup(func() { h.End(syscall.SIGTERM) })
	for range 500 {
		if _, err := os.Lstat(socket); err == nil {
			if _, err := h.Find(t.Context(), "x"); err == nil {
				return h
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the host does not listen")
	return nil
}

// End ends the host and waits for it.
func (h *Host) End(s syscall.Signal) {
	if h.cmd.ProcessState != nil {
		return
	}
	_ = h.cmd.Process.Signal(s)
	if err := h.cmd.Wait(); err != nil && s == syscall.SIGTERM {
		h.t.Errorf("host of servers: %v", err)
	}
}

// daemonise leaves the descriptor to a child in a session of its own.
func daemonise(fd int, args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.Background(), exe, serverWord, args[0], "", args[2], "/dev/null")
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "/dev/fuse")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}
