package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/csikit/csikit/internal/csiclient"
)

// process is a driver that runs.
type process struct {
	argv   []string
	socket string
	log    string
	cmd    *exec.Cmd
	ended  chan struct{}
}

func newProcess(driver, dir, mutant string) (*process, error) {
	state, socket := filepath.Join(dir, "driver"), filepath.Join(dir, "sock", "csi.sock")
	for _, d := range []string{state, filepath.Dir(socket)} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return nil, err
		}
	}
	return &process{
		argv:   []string{driver, "-mutant", mutant, "-endpoint", "unix://" + socket, "-state", state},
		socket: socket, log: filepath.Join(dir, "log"),
	}, nil
}

// start runs the driver until it answers.
func (p *process) start(ctx context.Context) error {
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()                              //nolint:errcheck // the driver has its own copy
	p.cmd = exec.Command(p.argv[0], p.argv[1:]...) //nolint:noctx // it ends by stop
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = out, out, driverAttr()
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.ended = make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(p.ended) }() // what it ended with is in its log
	return p.answers(ctx)
}

// answers waits for somebody who listens.
func (p *process) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		if pid, err := csiclient.Peer(p.socket); err == nil && int(pid) == p.cmd.Process.Pid {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("the driver ended: %s", tail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("the driver does not listen: %s", tail(p.log))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// restart is kill -9 and a new start.
func (p *process) restart(ctx context.Context) error {
	p.kill()
	return p.start(ctx)
}

func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // it has ended, or ends now
	<-p.ended
}

// stop ends the driver as its CO would, and then for sure.
func (p *process) stop() {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it has ended, or ends now
	select {
	case <-p.ended:
	case <-time.After(3 * time.Second):
		p.kill()
	}
}

func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-300):])
}
