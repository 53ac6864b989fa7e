package kubernetes

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// timed is a driver of TestTiming.
type timed struct {
	name, ns, class string
	steps           map[string][]time.Duration
}

// The steps, and how often each is done: by turns, so that both drivers meet the same
// neighbours on the machine.
const (
	stepBound   = "PVC to Bound"
	stepRunning = "pod to Running"
	stepDeleted = "pod and PVC deleted to volume gone"
	stepCrowd   = "PVCs and pods at once to Running"
	stepAllGone = "delete all of them to volumes gone"
)

// TestTiming times examples/loopfile beside csi-driver-host-path, in one cluster, with
// the same sidecars: host-path makes a directory where loopfile makes an ext4.
func TestTiming(t *testing.T) {
	var rounds, crowd int
	if n, err := fmt.Sscanf(os.Getenv("CSIKIT_TIMING"), "%d,%d", &rounds, &crowd); n < 2 {
		t.Skipf("CSIKIT_TIMING=6,100 runs it (make kubernetes-timing): volumes one after the other, and at once: %v", err)
	}
	before := load()
	drivers := []*timed{{name: "loopfile"}}
	d := deploy(t, variants()[0])
	apply(t, strings.Replace(d.newClass("timing-loopfile", "Immediate", "Delete", map[string]string{"csi.storage.k8s.io/fstype": ext4}), "---\n", "", 1))
	t.Cleanup(func() { kubectl(t, "delete", "sc", "timing-loopfile") })
	if _, err := os.Stat(filepath.Join(binaries(), "hostpathplugin")); err != nil {
		t.Log("host-path is not built (build.sh hostpath): loopfile alone")
	} else {
		deployHostPath(t)
		drivers = append(drivers, &timed{name: "hostpath"})
	}
	a := newAPI(t)
	for _, d := range drivers {
		d.ns, d.class, d.steps = "timing-"+d.name, "timing-"+d.name, map[string][]time.Duration{}
		kubectl(t, "create", "namespace", d.ns)
		t.Cleanup(func() { kubectl(t, "delete", "namespace", d.ns, "--timeout=180s") })
		eventually(t, "the default account", func() error { _, err := try("", "-n", d.ns, "get", "sa", "default"); return err })
	}
	for range rounds {
		for _, d := range drivers {
			one(t, a, d)
		}
	}
	t.Logf("load %s%s", load(), timings(drivers, stepBound, stepRunning, stepDeleted))
	for _, d := range drivers {
		many(t, a, d, crowd)
		t.Logf("%s: %d at once: %v, gone after %v, load %s", d.name, crowd, d.steps[stepCrowd], d.steps[stepAllGone], load())
	}
	fmt.Printf("load before: %s, after: %s\n%s", before, load(), timings(drivers, stepBound, stepRunning, stepDeleted, stepCrowd, stepAllGone))
}

// one is a volume's life.
func one(t *testing.T, a *api, d *timed) {
	t.Helper()
	claims, pods := "/api/v1/namespaces/"+d.ns+"/persistentvolumeclaims", "/api/v1/namespaces/"+d.ns+"/pods"
	began := time.Now()
	a.must("POST", claims, claimOf("x", d.class))
	var volume string
	a.until(t, "the claim is bound", func() bool {
		pvc := a.must("GET", claims+"/x", "")
		volume = pvc.Spec.VolumeName
		return pvc.Status.Phase == "Bound"
	})
	d.steps[stepBound] = append(d.steps[stepBound], time.Since(began))
	began = time.Now()
	a.must("POST", pods, podOf("x"))
	a.until(t, "the pod runs", func() bool { return a.must("GET", pods+"/x", "").Status.Phase == "Running" })
	d.steps[stepRunning] = append(d.steps[stepRunning], time.Since(began))
	began = time.Now()
	a.must("DELETE", pods+"/x", "")
	a.must("DELETE", claims+"/x", "")
	a.until(t, "the volume is gone", func() bool { return !a.there("/api/v1/persistentvolumes/" + volume) })
	d.steps[stepDeleted] = append(d.steps[stepDeleted], time.Since(began))
}

// many is a rush of volumes.
func many(t *testing.T, a *api, d *timed, crowd int) {
	t.Helper()
	claims, pods := "/api/v1/namespaces/"+d.ns+"/persistentvolumeclaims", "/api/v1/namespaces/"+d.ns+"/pods"
	began := time.Now()
	for i := range crowd {
		name := fmt.Sprintf("x%02d", i)
		a.must("POST", claims, claimOf(name, d.class))
		a.must("POST", pods, podOf(name))
	}
	a.until(t, "all pods run", func() bool {
		return len(a.must("GET", pods+"?fieldSelector=status.phase%3DRunning", "").Items) == crowd
	})
	d.steps[stepCrowd] = append(d.steps[stepCrowd], time.Since(began))
	began = time.Now()
	a.must("DELETE", pods, "")
	a.must("DELETE", claims, "")
	a.until(t, "all volumes are gone", func() bool {
		return !slices.ContainsFunc(a.must("GET", "/api/v1/persistentvolumes", "").Items, func(o reply) bool { return o.Spec.ClaimRef.Namespace == d.ns })
	})
	d.steps[stepAllGone] = append(d.steps[stepAllGone], time.Since(began))
}

func claimOf(name, class string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: %s},
spec: {storageClassName: %s, accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}}}`, name, class)
}

func podOf(name string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %[1]s}, spec: {terminationGracePeriodSeconds: 0, dnsPolicy: Default,
containers: [{name: c, image: %[2]q, imagePullPolicy: Never, command: [sleep, "100000"], volumeMounts: [{name: v, mountPath: /data}]}],
volumes: [{name: v, persistentVolumeClaim: {claimName: %[1]s}}]}}`, name, image)
}

// timings is the table: the median of each step, and the worst; of the first driver,
// and beside it of the second.
func timings(drivers []*timed, steps ...string) string {
	var b strings.Builder
	b.WriteString("\n| median (worst), s |")
	for _, d := range drivers {
		b.WriteString(" " + d.name + " |")
	}
	b.WriteString(" ratio |\n|---|" + strings.Repeat("---|", len(drivers)+1) + "\n")
	for _, step := range steps {
		if len(drivers[0].steps[step]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s, %d times |", step, len(drivers[0].steps[step]))
		var medians []float64
		for _, d := range drivers {
			s := slices.Sorted(slices.Values(d.steps[step]))
			medians = append(medians, (s[(len(s)-1)/2]+s[len(s)/2]).Seconds()/2)
			fmt.Fprintf(&b, " %.2f (%.2f) |", medians[len(medians)-1], s[len(s)-1].Seconds())
		}
		if len(medians) == 2 {
			fmt.Fprintf(&b, " %.2f |", medians[0]/medians[1])
		}
		b.WriteString("\n")
	}
	return b.String()
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}

// api is the apiserver without kubectl, whose start takes longer than what is timed.
type api struct {
	t      *testing.T
	client *http.Client
	token  string
}

// reply is what is looked at of an object, or of a list.
type reply struct {
	Items []reply `json:"items"`
	Spec  struct {
		VolumeName string `json:"volumeName"`
		ClaimRef   struct {
			Namespace string `json:"namespace"`
		} `json:"claimRef"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"-"`
	RawStatus json.RawMessage `json:"status"` // a string where the reply is a Status
}

func newAPI(t *testing.T) *api {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(state(), "pki/ca.crt"))
	tokens, err2 := os.ReadFile(filepath.Join(state(), "pki/tokens.csv"))
	pool := x509.NewCertPool()
	if err != nil || err2 != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatal(err, err2)
	}
	token, _, _ := strings.Cut(string(tokens), ",") // the administrator's is the first
	return &api{t, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}, token}
}

func (a *api) do(method, path, body string) (int, []byte) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, "https://127.0.0.1:443"+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Content-Type", "application/yaml")
	req.Header.Set("Accept", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp.StatusCode, b
}

func (a *api) must(method, path, body string) reply {
	a.t.Helper()
	code, b := a.do(method, path, body)
	if code >= 300 {
		a.t.Fatalf("%s %s: %d %s", method, path, code, b)
	}
	var r reply
	if err := json.Unmarshal(b, &r); err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	_ = json.Unmarshal(r.RawStatus, &r.Status) // that of a deletion is no object
	return r
}

func (a *api) there(path string) bool {
	a.t.Helper()
	code, b := a.do("GET", path, "")
	if code != http.StatusOK && code != http.StatusNotFound {
		a.t.Fatalf("%s: %d %s", path, code, b)
	}
	return code == http.StatusOK
}

func (a *api) until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * patience); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after %v", what, 2*patience)
		}
	}
}
