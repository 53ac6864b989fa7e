package kubernetes

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long one step may take on a busy machine.
const patience = 3 * time.Minute

// try runs kubectl as the cluster's administrator.
func try(stdin string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(binaries(), "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(state(), "admin.kubeconfig"))
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), err
}

// tool runs a tool of the node.
func tool(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}

func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := try("", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func apply(t *testing.T, yaml string) {
	t.Helper()
	if out, err := try(yaml, "apply", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, yaml)
	}
}

// eventually waits until f is nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// is waits until a field of an object has a value.
func is(t *testing.T, want, path string, object ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s of %v", path, object), func() error {
		got, err := try("", append([]string{"get", "-o", "jsonpath=" + path}, object...)...)
		if err == nil && got != want {
			err = fmt.Errorf("it is %q, want %q", got, want)
		}
		return err
	})
}

// gone waits until an object is not there any more.
func gone(t *testing.T, object ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v is still there", object), func() error {
		out, err := try("", append([]string{"get", "--ignore-not-found", "--no-headers"}, object...)...)
		if err == nil && out != "" {
			err = errors.New(out)
		}
		return err
	})
}

// noLabel is what no name of a namespace has.
var noLabel = regexp.MustCompile(`[^a-z0-9]+`)

// space is a flow's namespace.
type space struct {
	*testing.T
	ns     string
	d      *deployed
	before []string // of the driver's volumes
	remark string   // what the table says of the flow besides
}

func newSpace(t *testing.T, d *deployed) *space {
	t.Helper()
	name := strings.ToLower(t.Name())
	before, err := d.driver.left()
	if err != nil {
		t.Fatal(err)
	}
	s := &space{T: t, ns: "f-" + noLabel.ReplaceAllString(name[strings.LastIndexByte(name, '/')+1:], "-"), d: d, before: before}
	kubectl(t, "create", "namespace", s.ns)
	eventually(t, "the default account", func() error { _, err := try("", "-n", s.ns, "get", "sa", "default"); return err })
	t.Cleanup(s.close)
	return s
}

// close deletes what the flow made, and waits until the driver and kubelet have given
// all of it back.
func (s *space) close() {
	if s.Failed() {
		s.Logf("events:\n%s", s.events())
		s.Logf("driver:\n%s", s.d.log(120))
		s.Logf("the driver's pods:\n%s", s.d.logs(60))
	}
	volumes, err := try("", "get", "pv", "-o", `jsonpath={range .items[?(@.spec.claimRef.namespace=="`+s.ns+`")]}{.metadata.name} {end}`)
	if err != nil {
		s.Error(err)
	}
	for _, kind := range []string{"pod", "volumegroupsnapshot", "volumesnapshot", "pvc"} {
		if _, err := try("", "-n", s.ns, "delete", kind, "--all", "--timeout=150s"); err != nil {
			s.Errorf("delete: %v", err)
		}
	}
	for v := range strings.FieldsSeq(volumes) {
		if out, err := try("", "wait", "--for=delete", "pv/"+v, "--timeout=150s"); err != nil && !strings.Contains(err.Error(), "NotFound") {
			s.Errorf("volume %s is left: %v %s", v, err, out)
		}
	}
	_, _ = try("", "delete", "namespace", s.ns, "--wait=false")
	// What nobody refuses to delete may go before kubelet has unstaged it.
	eventually(s.T, "the flow's mounts go", func() error {
		return unmounted(strings.Fields(volumes)...)
	})
	s.has(0, "all that the flow made is gone from the storage")
}

// unmounted says which of these texts a line of mountinfo still has.
func unmounted(texts ...string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	for _, text := range texts {
		if bytes.Contains(mounts, []byte(text)) {
			err = errors.Join(err, fmt.Errorf("a mount of %s is left", text))
		}
	}
	return err
}

// made is what of the flow's is on the storage.
func (s *space) made() ([]string, error) {
	all, err := s.d.driver.left()
	return slices.DeleteFunc(all, func(v string) bool { return slices.Contains(s.before, v) }), err
}

// has waits until so many volumes of the flow's are on the storage.
func (s *space) has(n int, what string) {
	s.Helper()
	eventually(s.T, what, func() error {
		made, err := s.made()
		if err == nil && len(made) != n {
			err = fmt.Errorf("%d are there, want %d: %v", len(made), n, made)
		}
		return err
	})
}

func (s *space) events() string {
	out, _ := try("", "-n", s.ns, "get", "events", "--sort-by=.lastTimestamp", "-o",
		`jsonpath={range .items[*]}{.type} {.involvedObject.kind}/{.involvedObject.name} {.reason}: {.message}{"\n"}{end}`)
	lines := strings.Split(out, "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

func (s *space) get(path string, object ...string) string {
	s.Helper()
	return kubectl(s.T, append([]string{"-n", s.ns, "get", "-o", "jsonpath=" + path}, object...)...)
}

func (s *space) is(want, path string, object ...string) {
	s.Helper()
	is(s.T, want, path, append([]string{"-n", s.ns}, object...)...)
}

func (s *space) apply(yaml string) {
	s.Helper()
	if out, err := try(yaml, "-n", s.ns, "apply", "-f", "-"); err != nil {
		s.Fatalf("%v\n%s\n%s", err, out, yaml)
	}
}

// sh runs a command in a pod.
func (s *space) sh(pod, command string) string {
	s.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Second) {
		out, err := try("", "-n", s.ns, "exec", pod, "--", "sh", "-c", command)
		if err == nil {
			return out
		}
		// A kubelet that has just started does not know its pods yet.
		if !strings.Contains(err.Error(), "unable to upgrade connection") || time.Now().After(end) {
			s.Fatal(err)
		}
	}
}

// claim makes a PVC; more are further fields of its spec.
func (s *space) claim(name, class, size string, more ...string) {
	s.Helper()
	s.apply(fmt.Sprintf(`apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s}
spec:
  storageClassName: %s
  resources: {requests: {storage: %s}}
  %s
`, name, s.d.class(class), size, strings.Join(withAccess(more), "\n  ")))
}

// withAccess adds the usual mode.
func withAccess(fields []string) []string {
	for _, f := range fields {
		if strings.HasPrefix(f, "accessModes") {
			return fields
		}
	}
	return append(fields, "accessModes: [ReadWriteOnce]")
}

const image = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"

// pod makes a pod that sleeps with claims mounted at /data, or as device /dev/xvda;
// more are further fields of its spec.
func (s *space) pod(name, claim string, more ...string) {
	s.Helper()
	s.podOf(name, "persistentVolumeClaim: {claimName: "+claim+"}", "volumeMounts: [{name: v, mountPath: /data}]", more...)
}

func (s *space) blockPod(name, claim string) {
	s.Helper()
	s.podOf(name, "persistentVolumeClaim: {claimName: "+claim+"}", "volumeDevices: [{name: v, devicePath: /dev/xvda}]")
}

func (s *space) podOf(name, volume, use string, more ...string) {
	s.Helper()
	s.apply(fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  dnsPolicy: Default
  containers:
  - name: c
    image: %s
    imagePullPolicy: Never
    command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 1; done"]
    %s
  volumes: [{name: v, %s}]
  %s
`, name, image, use, volume, strings.Join(more, "\n  ")))
}

func (s *space) ready(pods ...string) {
	s.Helper()
	for _, p := range pods {
		s.is("True", `{.status.conditions[?(@.type=="Ready")].status}`, "pod", p)
	}
}

func (s *space) remove(kind, name string) {
	s.Helper()
	kubectl(s.T, "-n", s.ns, "delete", kind, name, "--timeout=150s")
}
