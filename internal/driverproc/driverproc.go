// Package driverproc runs a CSI driver as a process, as its CO sees it: started,
// asked whether it is ready, killed, started again, stopped. For csikit's demo,
// benchmarks and tests.
package driverproc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	readyTimeout = 30 * time.Second
	stopTimeout  = 40 * time.Second // a little more than csidriver's drain
)

// Process is a driver with its socket. Its methods are for one goroutine.
type Process struct {
	Argv   []string
	Env    []string // added to this process's own
	Socket string
	Log    string // file that its output is appended to

	cmd  *exec.Cmd
	conn *grpc.ClientConn
}

// Conn is the connection to the driver; it survives a restart.
func (p *Process) Conn() *grpc.ClientConn { return p.conn }

// PID is the process's, also after its end.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Start runs the driver and waits until its Probe says ready.
func (p *Process) Start(ctx context.Context) error {
	logs, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer logs.Close()                            //nolint:errcheck // the child has its own copy
	cmd := exec.Command(p.Argv[0], p.Argv[1:]...) //nolint:noctx // it ends by Stop or Kill, not with ctx
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.Stdout, cmd.Stderr = logs, logs
	cmd.SysProcAttr = childAttr()
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	if p.conn == nil {
		p.conn, err = grpc.NewClient("unix://"+p.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
	}
	return p.waitReady(ctx)
}

// waitReady asks Probe until it says ready, and no longer than the process lives.
func (p *Process) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	identity := csi.NewIdentityClient(p.conn)
	for {
		if p.conn.GetState() == connectivity.TransientFailure {
			p.conn.ResetConnectBackoff()
		}
		resp, err := identity.Probe(ctx, &csi.ProbeRequest{})
		if err == nil && (resp.GetReady() == nil || resp.GetReady().GetValue()) {
			return nil
		}
		var status syscall.WaitStatus
		if pid, _ := syscall.Wait4(p.PID(), &status, syscall.WNOHANG, nil); pid == p.PID() {
			return fmt.Errorf("the driver ended before it was ready: %s\n%s", describe(status), p.Tail(10))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the driver is not ready: %w\n%s", errors.Join(err, ctx.Err()), p.Tail(10))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return s.Signal().String()
	}
	return fmt.Sprintf("exit code %d", s.ExitStatus())
}

// Kill ends the driver without warning (SIGKILL) and waits for its end.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_ = p.cmd.Wait() // says only that it was killed
	return nil
}

// Stop ends the driver in order (SIGTERM) and reports an exit code other than 0.
func (p *Process) Stop() error {
	if p.cmd == nil || p.cmd.ProcessState != nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(stopTimeout):
		err := p.cmd.Process.Kill()
		return errors.Join(fmt.Errorf("the driver, pid %d, did not stop within %s", p.PID(), stopTimeout), err, <-done)
	}
}

// Close stops the driver if it runs and closes the connection.
func (p *Process) Close() error {
	err := p.Stop()
	if p.conn != nil {
		err = errors.Join(err, p.conn.Close())
	}
	return err
}

// Tail is the last n lines of the log.
func (p *Process) Tail(n int) string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}
