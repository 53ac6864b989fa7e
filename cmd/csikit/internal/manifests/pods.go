package manifests

import (
	"path"
	"slices"
	"strconv"

	"github.com/csikit/csikit/internal/kubeletsock"
)

// The driver's socket in each container.
const (
	socketDir   = "/csi"
	socketInPod = socketDir + "/csi.sock"
	// How long a probe may take. The driver answers within a second of CPU that it gets.
	probeSeconds = 10
)

func (w *writer) stateDir() string { return "/var/lib/csi-" + w.f.Name }
func (w *writer) plugins() string  { return path.Join(w.o.Kubelet, "plugins", w.f.Name) }
func (w *writer) registry() string { return path.Join(w.o.Kubelet, kubeletsock.Registry) }
func (w *writer) socket() string   { return path.Join(w.plugins(), path.Base(socketInPod)) } // on the node

func (w *writer) daemonSet() object {
	mode := ""
	if w.layout == split && w.f.hasController() {
		mode = "node"
	}
	containers := list{w.driver(mode, true)}
	if w.o.Registrar {
		containers = append(containers, w.registrar())
		containers = append(containers, w.livenessProbe())
	}
	api := false
	if w.layout != split {
		for _, s := range w.sidecars() {
			containers, api = append(containers, w.container(s)), true
		}
	}
	return object{
		{"apiVersion", "apps/v1"},
		{"kind", "DaemonSet"},
		{"metadata", w.meta(w.base+"-node", true)},
		{"spec", object{
			{"selector", object{{"matchLabels", w.labels("node")}}},
			// One node at a time: what is mounted stays, but nothing new is while a
			// driver restarts.
			{"updateStrategy", object{{"type", "RollingUpdate"}, {"rollingUpdate", object{{"maxUnavailable", 1}}}}},
			{"template", w.pod("node", api, containers, w.nodeVolumes(), "system-node-critical",
				// A node that is drained or ill still has mounts to be taken back.
				list{object{{"operator", "Exists"}}})},
		}},
	}
}

func (w *writer) deployment() object {
	containers := list{w.driver("controller", false)}
	if w.o.Registrar {
		containers = append(containers, w.livenessProbe())
	}
	for _, s := range w.sidecars() {
		containers = append(containers, w.container(s))
	}
	volumes := list{object{{"name", "socket"}, {"emptyDir", object{}}}}
	for i, p := range w.o.HostPaths {
		volumes = append(volumes, hostPath("host-"+strconv.Itoa(i), p, "Directory"))
	}
	volumes = append(volumes, w.metadataVolume()...)
	return object{
		{"apiVersion", "apps/v1"},
		{"kind", "Deployment"},
		{"metadata", w.meta(w.base+"-controller", true)},
		{"spec", object{
			// The sidecars elect a leader each; drivers know of each other's operations by
			// csidriver.Options.Locker alone. Without it there is one, also in an upgrade:
			// the old one drains for longer than the leases of its sidecars last.
			{"replicas", 1},
			{"strategy", object{{"type", "Recreate"}}},
			{"selector", object{{"matchLabels", w.labels("controller")}}},
			{"template", w.pod("controller", true, containers, volumes, "system-cluster-critical", nil)},
		}},
	}
}

func (w *writer) labels(half string) object {
	return object{{"app.kubernetes.io/name", w.base}, {"app.kubernetes.io/component", half}}
}

func (w *writer) pod(half string, api bool, containers, volumes list, priority string, tolerations list) object {
	hostNetwork := half == "node" && w.f.hostNetwork()
	return object{
		{"metadata", object{{"labels", w.labels(half)}}},
		{"spec", object{
			{"serviceAccountName", w.base + "-" + half},
			{"automountServiceAccountToken", api},
			// Connections of the kernel outlive the driver's pod only there.
			{"hostNetwork", only(hostNetwork, true)},
			// Names of servers are the same as for the controller.
			{"dnsPolicy", only(hostNetwork, "ClusterFirstWithHostNet")},
			{"priorityClassName", priority},
			{"nodeSelector", object{{"kubernetes.io/os", "linux"}}},
			{"tolerations", only(tolerations != nil, tolerations)},
			{"securityContext", object{{"seccompProfile", object{{"type", "RuntimeDefault"}}}}},
			// Longer than csidriver.Options.Drain, so that work ends before the kill.
			{"terminationGracePeriodSeconds", 40},
			{"containers", containers},
			{"volumes", volumes},
		}},
	}
}

// driver is the driver's own container.
func (w *writer) driver(mode string, node bool) object {
	mounts := list{object{{"name", "socket"}, {"mountPath", socketDir}}}
	security := confined()
	if node || w.f.privilegedController() {
		security = object{{"privileged", true}} // it mounts, and makes device nodes
	}
	if node {
		mounts = append(mounts, w.nodeMounts()...)
	}
	for i, p := range w.o.HostPaths {
		m := object{{"name", "host-" + strconv.Itoa(i)}, {"mountPath", p}}
		if node {
			m = append(m, field{"mountPropagation", "HostToContainer"}) // its disk may be mounted later
		}
		mounts = append(mounts, m)
	}
	return object{
		{"name", "driver"},
		{"image", w.o.Image},
		{"args", w.driverArgs(mode, node)},
		{"env", list{
			object{{"name", "CSI_ENDPOINT"}, {"value", "unix://" + socketInPod}},
			fieldEnv("NODE_NAME", "spec.nodeName"),
		}},
		{"securityContext", security},
		// livenessprobe's, if that is who answers: in the host's network the scheduler
		// gives it to one pod.
		{"ports", list{object{{"name", "health"}, {"containerPort", w.o.HealthPort}}}},
		// livenessprobe is not well while the driver starts: ten minutes for that.
		{"startupProbe", only(w.o.Registrar, w.probe("/healthz", 60))},
		{"livenessProbe", w.probe("/healthz", 6)},
		{"readinessProbe", only(!w.o.Registrar, w.probe("/readyz", 1))},
		// The request is also its weight when the node has more to do than it can: with
		// 20m the driver's probes were not answered in time at 12 processes a CPU.
		{"resources", resources("50m", "64Mi")},
		{"volumeMounts", mounts},
	}
}

func (w *writer) driverArgs(mode string, node bool) list {
	var args list
	if !w.o.Plain {
		if mode != "" {
			args = append(args, "-mode="+mode)
		}
		args = append(args, "-node-id=$(NODE_NAME)")
		if node {
			args = append(args, "-state-dir="+w.stateDir(), "-kubelet-dir="+w.o.Kubelet)
			if !w.o.Registrar {
				args = append(args, "-register", "-kubelet-endpoint="+w.socket())
			}
		}
		if !w.o.Registrar {
			args = append(args, "-health=:"+strconv.Itoa(w.o.HealthPort))
		}
	}
	for _, a := range w.o.Args {
		args = append(args, a)
	}
	return args
}

// probe asks the driver, or livenessprobe beside it. What it looks for is rare, and
// a restart is dear: a node that is busy for a minute is no reason for one.
func (w *writer) probe(path string, failures int) object {
	return object{
		{"httpGet", object{{"path", path}, {"port", w.o.HealthPort}}},
		{"periodSeconds", 10},
		{"timeoutSeconds", probeSeconds},
		{"failureThreshold", failures},
	}
}

func (w *writer) nodeMounts() list {
	mounts := list{
		// Mounts below it must reach the host, or pods see empty directories.
		object{{"name", "kubelet"}, {"mountPath", w.o.Kubelet}, {"mountPropagation", "Bidirectional"}},
		object{{"name", "state"}, {"mountPath", w.stateDir()}},
		object{{"name", "dev"}, {"mountPath", "/dev"}},
	}
	for i, p := range w.needed() {
		mounts = append(mounts, object{{"name", "needed-" + strconv.Itoa(i)}, {"mountPath", p}})
	}
	return mounts
}

func (w *writer) nodeVolumes() list {
	volumes := list{
		hostPath("socket", w.plugins(), "DirectoryOrCreate"),
		hostPath("kubelet", w.o.Kubelet, "Directory"),
		// What is mounted and how, on the host's disk: it outlives the pod.
		hostPath("state", w.stateDir(), "DirectoryOrCreate"),
		hostPath("dev", "/dev", "Directory"),
	}
	if w.o.Registrar {
		volumes = append(volumes, hostPath("registration", w.registry(), "Directory"))
	}
	for i, p := range w.o.HostPaths {
		volumes = append(volumes, hostPath("host-"+strconv.Itoa(i), p, "Directory"))
	}
	for i, p := range w.needed() {
		volumes = append(volumes, hostPath("needed-"+strconv.Itoa(i), p, "DirectoryOrCreate"))
	}
	if w.layout != split {
		volumes = append(volumes, w.metadataVolume()...)
	}
	return volumes
}

// container is that of a sidecar.
func (w *writer) container(s sidecar) object {
	c := object{}
	if s.note != "" {
		c = append(c, field{"#", s.note})
	}
	var args list
	for _, a := range s.args {
		args = append(args, a)
	}
	return append(c, object{
		{"name", s.name},
		{"image", images[s.name]},
		{"args", args},
		{"env", only(len(s.env) > 0, unique(s.env))},
		{"securityContext", confined()},
		{"readinessProbe", only(s.ready != nil, s.ready)},
		{"resources", resources("10m", "32Mi")},
		{"volumeMounts", append(list{object{{"name", "socket"}, {"mountPath", socketDir}}}, s.mounts...)},
	}...)
}

// unique leaves out an environment variable that is there already.
func unique(env list) list {
	var out list
	var names []string
	for _, e := range env {
		name := e.(object)[0].value.(string)
		if !slices.Contains(names, name) {
			out, names = append(out, e), append(names, name)
		}
	}
	return out
}

func (w *writer) registrar() object {
	c := w.container(sidecar{name: "csi-node-driver-registrar", args: []string{
		"--csi-address=" + socketInPod, "--kubelet-registration-path=" + w.socket(), "--v=2",
	}})
	for i := range c {
		if c[i].key == "volumeMounts" {
			c[i].value = append(c[i].value.(list), object{{"name", "registration"}, {"mountPath", "/registration"}})
		}
	}
	return c
}

func (w *writer) livenessProbe() object {
	return w.container(sidecar{name: "livenessprobe", args: []string{
		"--csi-address=" + socketInPod, "--health-port=" + strconv.Itoa(w.o.HealthPort), "--v=2",
		"--probe-timeout=" + strconv.Itoa(probeSeconds-2) + "s", // a second, else
	}})
}

func hostPath(name, path, kind string) object {
	return object{{"name", name}, {"hostPath", object{{"path", path}, {"type", kind}}}}
}

func fieldEnv(name, path string) object {
	return object{{"name", name}, {"valueFrom", object{{"fieldRef", object{{"fieldPath", path}}}}}}
}

// confined is for what only talks to the socket, which is root's.
func confined() object {
	return object{
		{"allowPrivilegeEscalation", false},
		{"readOnlyRootFilesystem", true},
		{"capabilities", object{{"drop", []string{"ALL"}}}},
	}
}

func resources(cpu, memory string) object {
	return object{{"requests", object{{"cpu", cpu}, {"memory", memory}}}}
}
