package mounter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

// vault is a backend of encrypted loop devices that stay attached: what it knows
// is in files, so that it is the same one in another process.
type vault struct {
	dir string
	enc backends.Encryption
	off bool // encryption is not asked for
}

// vaultRecorder remembers formats, too.
type vaultRecorder struct{ *vault }

type vaultDisk struct {
	Loop   string
	Format backends.FormatState
	FSType string
}

func (v *vault) file(id string) string { return filepath.Join(v.dir, id) }

func (v *vault) disk(id string) (d vaultDisk, err error) {
	b, err := os.ReadFile(v.file(id) + ".json")
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	return d, err
}

func (v *vault) set(id string, d vaultDisk) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return os.WriteFile(v.file(id)+".json", b, 0o600)
}

func (v *vault) inode(id string) (dev, ino uint64, err error) {
	var st unix.Stat_t
	err = unix.Stat(v.file(id), &st)
	return st.Dev, st.Ino, err
}

func (v *vault) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	d, err := v.disk(req.ID)
	if err != nil {
		return nil, err
	}
	dev, ino, err := v.inode(req.ID)
	if err != nil {
		return nil, err
	}
	src := &backends.Source{Device: &backends.Device{
		Path: d.Loop, Identity: backends.Identity{BackingDev: dev, BackingIno: ino}, Format: d.Format, FSType: d.FSType,
	}}
	if !v.off {
		enc := v.enc
		src.Device.Encryption = &enc
	}
	return src, nil
}

func (v *vault) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

func (v *vault) NodeExpandVolume(_ context.Context, req backends.NodeExpandVolumeRequest) error {
	d, err := v.disk(req.ID)
	if err != nil {
		return err
	}
	dev, ino, err := v.inode(req.ID)
	if err != nil {
		return err
	}
	return blockdev.ResizeLoop(d.Loop, dev, ino)
}

func (v vaultRecorder) RecordFormat(_ context.Context, req backends.RecordFormatRequest) error {
	d, err := v.disk(req.ID)
	if err != nil {
		return err
	}
	d.Format, d.FSType = req.Format, req.FSType
	return v.set(req.ID, d)
}

// luksRig is an engine on encrypted loop devices in the VM.
type luksRig struct {
	*realRig
	vault *vault
	node  backends.Node
	log   *testenv.Log
}

// quick is a key that is not made slow: the machine is.
func quick(key string) backends.Encryption {
	return backends.Encryption{Key: backends.NewSecret(key), PBKDF: "pbkdf2", Iterations: 1000}
}

func newLUKSVM(t *testing.T, recorder bool) *luksRig {
	t.Helper()
	testenv.Root(t)
	run(t, "modprobe", "dm-crypt")
	v := &vault{dir: t.TempDir(), enc: quick(luksKey)}
	r := &luksRig{realRig: &realRig{t: t, dir: t.TempDir()}, vault: v, node: v, log: &testenv.Log{}}
	if recorder {
		r.node = vaultRecorder{v}
	}
	r.state = r.path("state")
	r.start(nil)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.log)
		}
		_ = r.Close() // closed already where a child took over
		r.sweep()
	})
	return r
}

// sweep takes down what is left, and fails for each mapping.
func (r *luksRig) sweep() {
	for _, m := range r.mappings() {
		r.t.Errorf("mapping left: %s", m)
		_ = exec.Command("umount", "-A", "/dev/mapper/"+m).Run()
		_ = exec.Command("cryptsetup", "close", m).Run()
	}
	devices, err := filepath.Glob(r.vault.dir + "/*.json")
	must(r.t, err)
	for _, f := range devices {
		d, err := r.vault.disk(strings.TrimSuffix(filepath.Base(f), ".json"))
		must(r.t, err)
		run(r.t, "losetup", "-d", d.Loop)
	}
}

func (r *luksRig) start(observe func(string)) {
	r.t.Helper()
	log := r.log.Text()
	e, err := mounter.New(r.node, &mounter.Options{StateDir: r.state, AllowVolatileState: true, Logger: log, Observer: observe})
	must(r.t, err)
	must(r.t, e.Start(r.t.Context()))
	r.Engine = e
}

func (r *luksRig) restart() {
	r.t.Helper()
	must(r.t, r.Close())
	r.start(nil)
}

// make makes a device of that size, blank.
func (r *luksRig) make(id string, size int64) {
	r.t.Helper()
	f, err := os.OpenFile(r.vault.file(id), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	must(r.t, err)
	must(r.t, f.Truncate(size))
	must(r.t, f.Close())
	r.attach(id)
}

func (r *luksRig) attach(id string) {
	r.t.Helper()
	must(r.t, r.vault.set(id, vaultDisk{Loop: strings.TrimSpace(run(r.t, "losetup", "-f", "--show", r.vault.file(id)))}))
}

func (r *luksRig) loop(id string) string {
	r.t.Helper()
	d, err := r.vault.disk(id)
	must(r.t, err)
	return d.Loop
}

func (r *luksRig) mappings() []string {
	r.t.Helper()
	names, err := filepath.Glob("/sys/block/dm-*/dm/name")
	must(r.t, err)
	var all []string
	for _, f := range names {
		b, err := os.ReadFile(f)
		must(r.t, err)
		all = append(all, strings.TrimSpace(string(b)))
	}
	return all
}

func (r *luksRig) write(id, text string) {
	r.t.Helper()
	f, err := os.Create(r.path("staging-" + id + "/file"))
	must(r.t, err)
	_, err = f.WriteString(text)
	must(r.t, errors.Join(err, f.Sync(), f.Close()))
}

func (r *luksRig) wantFile(id, want string) {
	r.t.Helper()
	r.holds("staging-"+id+"/file", want)
}

// nothing fails when anything of the volumes is left.
func (r *luksRig) nothing() {
	r.t.Helper()
	if v := r.Volumes(); len(v) > 0 {
		r.t.Errorf("records left: %v", v)
	}
	if m := r.mappings(); len(m) > 0 {
		r.t.Errorf("mappings left: %v", m)
	}
	if nodes, _ := filepath.Glob("/dev/mapper/csikit-*"); len(nodes) > 0 {
		r.t.Errorf("nodes left: %v", nodes)
	}
}

// opens reports whether a key opens the device, as cryptsetup sees it.
func (r *luksRig) opens(id, key string) bool {
	cmd := exec.Command("cryptsetup", "open", "--test-passphrase", "--key-file=-", r.loop(id))
	cmd.Stdin = strings.NewReader(key)
	return cmd.Run() == nil
}

const (
	envLUKSChild = "CSIKIT_TEST_LUKS_CHILD" // a luksJob
)

// luksJob is what a driver in a process of its own does, until it is killed.
type luksJob struct {
	Dir, State, Staging string
	Key, Previous       string
	Recorder, Unstage   bool
	Step                int    // dies before it; 0: never
	At                  string // or before the first step of this name
	Orphan              string // or while this step's program runs, which goes on
}

// TestLUKSChild is that driver.
func TestLUKSChild(t *testing.T) {
	text := os.Getenv(envLUKSChild)
	if text == "" {
		t.Skip("a part of other tests")
	}
	var j luksJob
	must(t, json.Unmarshal([]byte(text), &j))
	v := &vault{dir: j.Dir, enc: quick(j.Key)}
	v.enc.PreviousKey = backends.NewSecret(j.Previous)
	var node backends.Node = v
	if j.Recorder {
		node = vaultRecorder{v}
	}
	die := func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL); select {} }
	n := 0
	e, err := mounter.New(node, &mounter.Options{StateDir: j.State, AllowVolatileState: true, Observer: func(step string) {
		if n++; n == j.Step || step == j.At {
			die()
		}
		if step == j.Orphan {
			go func() {
				for !programRuns("cryptsetup") {
				}
				die()
			}()
		}
	}})
	must(t, err)
	must(t, e.Start(t.Context()))
	if j.Unstage {
		must(t, e.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: j.Staging}))
		return
	}
	must(t, e.Stage(t.Context(), mounter.StageRequest{
		ID: "v", Path: j.Staging, Capability: backends.Capability{Mode: backends.SingleNodeWriter, FSType: "ext4"},
	}))
}

// programRuns reports whether a process of that name is there.
func programRuns(name string) bool { return len(processes(name)) > 0 }

func processes(name string) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/comm")
	var pids []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || strings.TrimSpace(string(b)) != name {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(f, "/proc/%d/", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// child runs a job, and says whether it was killed.
func (r *luksRig) child(j luksJob) (killed bool) {
	r.t.Helper()
	j.Dir, j.State, j.Staging = r.vault.dir, r.state, r.path("staging-v")
	if j.Key == "" {
		j.Key = luksKey
	}
	_, j.Recorder = r.node.(vaultRecorder)
	b, err := json.Marshal(j)
	must(r.t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^TestLUKSChild$", "-test.v")
	cmd.Env = append(os.Environ(), envLUKSChild+"="+string(b))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	r.t.Fatalf("the driver failed: %v\n%s", err, out)
	return false
}
