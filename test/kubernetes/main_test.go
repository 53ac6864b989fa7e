package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inside is set in the namespaces where the cluster runs.
const inside = "CSIKIT_KUBERNETES_INSIDE"

// programs of Kubernetes, which build.sh makes, and tools of the host.
var (
	programs = []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl", "pause", "snapshot-controller",
		"csi-provisioner", "csi-attacher", "csi-resizer", "csi-snapshotter", "csi-node-driver-registrar", "livenessprobe",
	}
	tools = []string{"containerd", "ctr", "runc", "unshare", "setpriv", "pgrep", "losetup", "ip", "openssl", "jq", "busybox", "mkfs.xfs", "mkfs.ext4"}
)

func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		os.Exit(run(m))
	}
	if os.Getenv("CSIKIT_KUBERNETES") == "table" {
		os.Exit(printTables(os.Args[1:]))
	}
	if why := missing(); why != "" {
		fmt.Println("kubernetes: not run:", why)
		if strings.Contains(","+os.Getenv("CSIKIT_REQUIRE")+",", ",kubernetes,") {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv("CSIKIT_KUBERNETES") == "vm" {
		os.Exit(enterVM())
	}
	os.Exit(enter())
}

// missing says why nothing can be run.
func missing() string {
	if os.Geteuid() != 0 {
		return "needs root"
	}
	var not []string
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(binaries(), p)); err != nil {
			not = append(not, p)
		}
	}
	if len(not) > 0 {
		return fmt.Sprintf("not built: %s (make kubernetes builds them into %s, once)", strings.Join(not, ", "), binaries())
	}
	for _, t := range tools {
		if _, err := exec.LookPath(t); err != nil {
			not = append(not, t)
		}
	}
	if len(not) > 0 {
		return fmt.Sprintf("not installed: %s (test/kubernetes/setup.sh)", strings.Join(not, ", "))
	}
	return ""
}

func binaries() string {
	if dir := os.Getenv("CSIK8S_BIN"); dir != "" {
		return dir
	}
	home, _ := os.UserHomeDir() // root's
	return filepath.Join(home, ".cache", "csikit-kubernetes", "bin")
}

// enter runs this program again in namespaces of its own.
func enter() int {
	self, err := os.Executable()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	cmd := outlived("./in-ns.sh", append([]string{self}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), inside+"=1", "CSIK8S_BIN="+binaries())
	return exitCode(follow(cmd))
}

// outlived is a script that is told when this program is killed.
func outlived(name string, args ...string) *exec.Cmd {
	runtime.LockOSThread() // or it is told when a thread of this program ends
	return exec.Command("setpriv", append([]string{"--pdeathsig", "TERM", name}, args...)...)
}

// ending are the signals that a run is ended by; go test's is SIGQUIT.
var ending = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

// follow runs a command that takes back what it made; a signal is for it.
func follow(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, ending...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	return cmd.Wait()
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// run boots the cluster, runs the tests, and takes the cluster down.
func run(m *testing.M) int {
	began := time.Now()
	if out, err := script("up.sh"); err != nil {
		fmt.Printf("up.sh: %v\n%s\n", err, out)
		return 1
	}
	fmt.Printf("kubernetes: up in %.1f s\n", time.Since(began).Seconds())
	code := m.Run()
	if !printTable() {
		code = max(code, 1)
	}
	if inVM() {
		return code // which ends with all that is in it
	}
	out, err := script("down.sh")
	if err != nil {
		fmt.Printf("down.sh: %v\n", err)
		code = max(code, 1)
	}
	fmt.Print(out)
	return code
}

// script runs one of this directory, with the cluster's programs first.
func script(name string, args ...string) (string, error) {
	cmd := exec.Command("./"+name, args...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// work is the directory below which everything is.
func work() string  { return os.Getenv("CSIK8S_WORK") }
func state() string { return os.Getenv("CSIK8S_DIR") }
