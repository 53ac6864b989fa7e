# Sourced by every script. All paths are parameters.
: "${CSIK8S_HERE:=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}"
: "${CSIK8S_DIR:=${TMPDIR:-/tmp}/csik8s}"                 # state: etcd data, logs, pids, kubeconfigs
: "${CSIK8S_BIN:=$HOME/.cache/csikit-kubernetes/bin}"     # binaries made by build.sh
: "${CSIK8S_SRC:=$HOME/.cache/csikit-kubernetes/src}"     # scratch Go modules of build.sh
: "${KUBELET_DIR:=/var/lib/kubelet}"
: "${NODE_NAME:=csi-node}"
: "${API_PORT:=443}"                         # that of the service "kubernetes": there is no kube-proxy
: "${ETCD_PORT:=12379}"
: "${KUBELET_PORT:=20250}"
: "${BRIDGE:=csik8s0}"
: "${NODE_IP:=10.88.0.1}"                      # address of the bridge this makes
: "${POD_CIDR:=10.88.0.0/16}"
: "${SERVICE_IP:=10.96.0.1}"                   # of the service "kubernetes": an address of the bridge
: "${KUBE_VERSION:=v1.36.3}"                   # k8s.io/kubernetes; staging is v0.36.3
: "${STAGING_VERSION:=v0${KUBE_VERSION#v1}}"
: "${PAUSE_IMAGE:=registry.k8s.io/pause:3.10.2}"
: "${BUSYBOX_IMAGE:=registry.k8s.io/e2e-test-images/busybox:1.37.0-1}"
: "${AGNHOST_IMAGE:=registry.k8s.io/e2e-test-images/agnhost:2.63.0}"
: "${RUNTIME_PATH:=/usr/sbin/runc}"
: "${CNI_BIN:=/usr/lib/cni}"
export KUBECONFIG=$CSIK8S_DIR/admin.kubeconfig
export PATH=$CSIK8S_BIN:$PATH
LOG=$CSIK8S_DIR/log; PIDS=$CSIK8S_DIR/pids
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN{printf "%.1fs", b-a}'; }
die() { echo "FATAL: $*" >&2; exit 1; }
# start NAME CMD...: background process, own session, pid recorded
start() {
  local n=$1; shift
  mkdir -p "$LOG" "$PIDS"
  setsid "$@" >"$LOG/$n.log" 2>&1 < /dev/null &
  echo $! > "$PIDS/$n"
}
# stop NAME: TERM, then KILL after 5 s, only the recorded pid
stop() {
  local f=$PIDS/$1 p; [ -f "$f" ] || return 0
  p=$(cat "$f"); rm -f "$f"
  kill "$p" 2>/dev/null || return 0
  for _ in $(seq 50); do kill -0 "$p" 2>/dev/null || return 0; sleep .1; done
  kill -9 "$p" 2>/dev/null || true
}
# wait_for SECONDS DESC CMD...
wait_for() {
  local t=$1 d=$2 i; shift 2
  for ((i=0; i<t*5; i++)); do "$@" >/dev/null 2>&1 && return 0; sleep .2; done
  echo "timeout after ${t}s: $d" >&2; return 1
}
