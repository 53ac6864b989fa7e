#!/usr/bin/env bash
# Boots etcd, kube-apiserver, -controller-manager, -scheduler, snapshot-controller,
# containerd and one kubelet as plain processes on this host. Needs root.
set -euo pipefail
. "$(dirname "$0")/env.sh"
[ "$(id -u)" = 0 ] || die "needs root"
for b in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet containerd ctr kubectl openssl; do command -v $b >/dev/null || die "$b not found (build.sh, apt-get install containerd runc containernetworking-plugins busybox-static)"; done
[ -d "$PIDS" ] && [ -n "$(ls "$PIDS" 2>/dev/null)" ] && die "already up ($PIDS not empty): run down.sh"
T0=$(now)
mkdir -p "$CSIK8S_DIR"/{pki,log,pids,etcd,cni} "$KUBELET_DIR"
P=$CSIK8S_DIR/pki

# --- host: kubelet dir with shared propagation, a bridge
mountpoint -q "$KUBELET_DIR" || mount --bind "$KUBELET_DIR" "$KUBELET_DIR"
mount --make-rshared "$KUBELET_DIR"
ip link show "$BRIDGE" >/dev/null 2>&1 || ip link add "$BRIDGE" type bridge
# An address of its own: else it has that of a pod's, and when that pod ends, the others'
# connections to the apiserver stall for a minute, and sidecars lose their leases.
ip link set "$BRIDGE" address 02:00:0a:58:00:01
ip addr replace "$NODE_IP/${POD_CIDR#*/}" dev "$BRIDGE"; ip addr replace "$SERVICE_IP/32" dev "$BRIDGE"; ip link set "$BRIDGE" up

# --- one self-signed certificate (CA and server), a service-account key, static tokens
if [ ! -f "$P/ca.crt" ]; then
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=csik8s -keyout "$P/ca.key" -out "$P/ca.crt" \
    -addext basicConstraints=critical,CA:TRUE \
    -addext "subjectAltName=IP:127.0.0.1,IP:$NODE_IP,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc" 2>/dev/null
  openssl genrsa -out "$P/sa.key" 2048 2>/dev/null; openssl rsa -in "$P/sa.key" -pubout -out "$P/sa.pub" 2>/dev/null
  A=$(openssl rand -hex 16) N=$(openssl rand -hex 16)
  printf '%s,admin,admin,"system:masters"\n%s,system:node:%s,node,"system:nodes"\n' "$A" "$N" "$NODE_NAME" > "$P/tokens.csv"
  chmod 600 "$P"/*
fi
kubeconf() { # FILE TOKEN
  cat > "$1" <<EOC
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:$API_PORT", certificate-authority: $P/ca.crt}}]
users: [{name: u, user: {token: $2}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
EOC
  chmod 600 "$1"
}
kubeconf "$CSIK8S_DIR/admin.kubeconfig" "$(sed -n 1p "$P/tokens.csv" | cut -d, -f1)"
kubeconf "$CSIK8S_DIR/kubelet.kubeconfig" "$(sed -n 2p "$P/tokens.csv" | cut -d, -f1)"

# --- containerd (CRI)
C=$CSIK8S_DIR/containerd.sock
cat > "$CSIK8S_DIR/cni/10-csik8s.conflist" <<EOC
{"cniVersion":"0.4.0","name":"csik8s","plugins":[{"type":"bridge","bridge":"$BRIDGE","isGateway":false,"ipMasq":false,
 "ipam":{"type":"host-local","dataDir":"$CSIK8S_DIR/cni-ipam","ranges":[[{"subnet":"$POD_CIDR","rangeStart":"${NODE_IP%.*.*}.1.10","gateway":"$NODE_IP"}]],"routes":[{"dst":"10.96.0.0/16"}]}}]}
EOC
cat > "$CSIK8S_DIR/containerd.toml" <<EOC
version = 2
root = "$CSIK8S_DIR/containerd"
state = "/run/csik8s-containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.zfs","io.containerd.snapshotter.v1.btrfs","io.containerd.snapshotter.v1.aufs","io.containerd.snapshotter.v1.devmapper","io.containerd.internal.v1.opt"]
[grpc]
  address = "$C"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$CNI_BIN"
    conf_dir = "$CSIK8S_DIR/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "$RUNTIME_PATH"
EOC
start containerd containerd -c "$CSIK8S_DIR/containerd.toml"

# --- control plane
start etcd etcd --name default --data-dir "$CSIK8S_DIR/etcd" --unsafe-no-fsync --log-level warn \
  --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
  --listen-peer-urls "http://127.0.0.1:$((ETCD_PORT+1))" --initial-advertise-peer-urls "http://127.0.0.1:$((ETCD_PORT+1))" \
  --initial-cluster "default=http://127.0.0.1:$((ETCD_PORT+1))"
start kube-apiserver kube-apiserver --etcd-servers "http://127.0.0.1:$ETCD_PORT" \
  --bind-address 0.0.0.0 --advertise-address "$NODE_IP" --secure-port "$API_PORT" \
  --tls-cert-file "$P/ca.crt" --tls-private-key-file "$P/ca.key" --token-auth-file "$P/tokens.csv" \
  --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$P/sa.pub" --service-account-signing-key-file "$P/sa.key" \
  --service-cluster-ip-range 10.96.0.0/16 --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
  --allow-privileged=true --kubelet-preferred-address-types InternalIP ${APISERVER_ARGS:-}
wait_for 120 "apiserver /readyz" kubectl get --raw /readyz
echo "apiserver ready $(since "$T0")"
start kube-controller-manager kube-controller-manager --kubeconfig "$KUBECONFIG" --leader-elect=false --bind-address 127.0.0.1 \
  --secure-port $((API_PORT+1)) --service-account-private-key-file "$P/sa.key" --root-ca-file "$P/ca.crt" --use-service-account-credentials=true \
  --cluster-signing-cert-file "$P/ca.crt" --cluster-signing-key-file "$P/ca.key" ${KCM_ARGS:-}
start kube-scheduler kube-scheduler --kubeconfig "$KUBECONFIG" --leader-elect=false --bind-address 127.0.0.1 --secure-port $((API_PORT+2))

# --- snapshot CRDs and controller
if command -v snapshot-controller >/dev/null; then
kubectl apply --server-side -f "$CSIK8S_BIN/crd" >/dev/null
start snapshot-controller snapshot-controller --kubeconfig "$KUBECONFIG" --leader-election=false --v=3 --enable-distributed-snapshotting=true ${SNAPSHOT_CONTROLLER_ARGS:-}
else echo "no snapshot-controller: snapshots are off"; fi

# --- images, kubelet
wait_for 30 containerd ctr -a "$C" version
"$CSIK8S_HERE/images.sh"
V1=false; [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] || V1=true
cat > "$CSIK8S_DIR/kubelet.yaml" <<EOC
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
port: $KUBELET_PORT
healthzBindAddress: 127.0.0.1
healthzPort: $((KUBELET_PORT+1))
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
failCgroupV1: $([ $V1 = true ] && echo false || echo true)
cgroupDriver: cgroupfs
cgroupRoot: ${KUBELET_CGROUP_ROOT:-/}
cgroupsPerQOS: ${CGROUPS_PER_QOS:-true}
enforceNodeAllocatable: [${ENFORCE_ALLOCATABLE-pods}]
failSwapOn: false
makeIPTablesUtilChains: false
containerRuntimeEndpoint: unix://$C
resolvConf: ""
clusterDomain: cluster.local
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
maxPods: 250
syncFrequency: ${SYNC_FREQUENCY:-5s}   # online expansion waits for the next pod sync
clusterDNS: [10.96.0.10]
volumeStatsAggPeriod: 10s
registerNode: true
${KUBELET_EXTRA:-}
EOC
"$CSIK8S_HERE/kubelet.sh" start
node_ready() { kubectl get node "$NODE_NAME" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}' | grep -q True; }
wait_for 90 "node Ready" node_ready
wait_for 60 "default serviceaccount" kubectl -n default get sa default
echo "node Ready $(since "$T0")"
kubectl get node -o wide
echo "export KUBECONFIG=$KUBECONFIG"
