package sanity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/csikit/csikit/csidriver"
)

// childProcess is how csi-sanity is run: this program again.
type childProcess struct {
	args []string
	cfg  *Config
	live Listener
}

// spawn runs csi-sanity in a child process; dir is for its files.
func spawn(ctx context.Context, dir string, cfg *Config, p childProcess) ([]spec, error) {
	o := order{Config: *cfg, Report: filepath.Join(dir, "report.json"), Left: filepath.Join(dir, "left.json"), Live: true}
	o.Config.Driver, o.Config.Options, o.Config.Secrets = csidriver.Config{}, nil, nil
	o.Config.Reproduce, o.Config.Restart, o.Config.Logs = nil, nil, nil
	var err error
	if o.SecretsFile, err = writeSecrets(dir, cfg.Secrets); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "order.json")
	if err := writeJSON(file, o); err != nil {
		return nil, err
	}
	out, err := p.run(ctx, file, cfg.Timeout)
	lerr := takeBack(ctx, o.Left, cfg)
	specs, rerr := readReport(o.Report)
	if rerr != nil {
		return nil, errors.Join(fmt.Errorf("sanity: the child process did not report. It printed:\n%s", out), err, rerr, lerr)
	}
	if err != nil {
		return specs, errors.Join(fmt.Errorf("sanity: the child process: %w; it printed:\n%s", err, out), lerr)
	}
	return specs, lerr
}

// run gives the child more time than csi-sanity gets, which ends by itself and
// says where it was.
func (p childProcess) run(ctx context.Context, order string, limit time.Duration) ([]byte, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit+30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(bounded, exe, p.args...)
	cmd.Env = append(os.Environ(), orderEnv+"="+order)
	cmd.WaitDelay = 10 * time.Second
	held, err := cmd.StdinPipe() // its end tells the child that we are gone
	if err != nil {
		return nil, err
	}
	defer held.Close() //nolint:errcheck // Wait closes it too
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = p.runLive(ctx, cmd)
	return out.Bytes(), err
}

// runLive hands on what the child says, and to the child that ctx has ended.
func (p childProcess) runLive(ctx context.Context, cmd *exec.Cmd) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()                //nolint:errcheck // nothing was written to it
	cmd.ExtraFiles = []*os.File{w} // is liveFD there
	// A Ctrl-C of the terminal is not for the child: a second one would keep
	// ginkgo from cleaning up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	_ = w.Close() // the child has its own
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		_ = cmd.Process.Signal(os.Interrupt) // no more specs; or it has ended already
	})()
	listen(r, p.cfg, p.live)
	return cmd.Wait()
}

// secretFields are the names under which csi-sanity looks for secrets.
var secretFields = []string{
	"CreateVolumeSecret", "DeleteVolumeSecret", "ControllerPublishVolumeSecret", "ControllerUnpublishVolumeSecret",
	"ControllerValidateVolumeCapabilitiesSecret", "NodeStageVolumeSecret", "NodePublishVolumeSecret",
	"CreateSnapshotSecret", "DeleteSnapshotSecret", "ControllerExpandVolumeSecret", "ControllerModifyVolumeSecret",
	"ListSnapshotsSecret", "GetSnapshotSecret",
}

// writeSecrets writes csi-sanity's file of secrets, if there are any. It reads
// YAML, of which JSON is a part.
func writeSecrets(dir string, secrets map[string]string) (string, error) {
	if len(secrets) == 0 {
		return "", nil
	}
	all := make(map[string]map[string]string)
	for _, f := range secretFields {
		all[f] = secrets
	}
	file := filepath.Join(dir, "secrets.yaml")
	return file, writeJSON(file, all)
}

func writeJSON(file string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}
