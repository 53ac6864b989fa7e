package sanity

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/csikit/csikit/csidriver"
)

// spawn runs csi-sanity in a child process: this test binary, for this test.
func spawn(ctx context.Context, t *testing.T, cfg *Config) ([]spec, error) {
	dir := t.TempDir()
	o := order{Config: *cfg, Report: filepath.Join(dir, "report.json")}
	o.Config.Driver, o.Config.Options, o.Config.Secrets = csidriver.Config{}, nil, nil
	var err error
	if o.SecretsFile, err = writeSecrets(dir, cfg.Secrets); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "order.json")
	if err := writeJSON(file, o); err != nil {
		return nil, err
	}
	out, err := child(ctx, t.Name(), file, cfg.Timeout)
	specs, rerr := readReport(o.Report)
	if rerr != nil {
		return nil, errors.Join(fmt.Errorf("sanity: the child process did not report; does the test reach sanity.Run when it is run alone? It printed:\n%s", out), err, rerr)
	}
	if err != nil {
		return specs, fmt.Errorf("sanity: the child process: %w; it printed:\n%s", err, out)
	}
	return specs, nil
}

// child runs the calling test again, up to Run. It gets more time than
// csi-sanity, which ends by itself and says where it was.
func child(ctx context.Context, test, order string, limit time.Duration) ([]byte, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit+30*time.Second)
	defer cancel()
	args := []string{"-test.run=" + pattern(test), "-test.count=1", "-test.timeout=" + (limit + time.Minute).String(), "-test.short=" + strconv.FormatBool(testing.Short())}
	args = append(args, givenFlags(flag.CommandLine, func(name string) bool { return strings.HasPrefix(name, "test.") })...)
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = append(os.Environ(), orderEnv+"="+order)
	cmd.WaitDelay = 10 * time.Second
	held, err := cmd.StdinPipe() // its end tells the child that we are gone
	if err != nil {
		return nil, err
	}
	out, err := cmd.CombinedOutput()
	_ = held.Close() // closed by Wait
	return out, err
}

// pattern is a -test.run that matches one test.
func pattern(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
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
